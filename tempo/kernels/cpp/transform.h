// All tiles of some transforms, over the threads.
#pragma once
#include "tile.h"

namespace TEMPO_ISA {

static thread_local Scratch scratch;

// in: of this tile. then: of the tile that this thread takes next, whose first slab is fetched meanwhile.
template <class S, class T, class D>
static int run_tile(const Transform& t, const Features<T>& features, const Tile& tile, const Reader<S, T>& in, const Reader<S, T>& then, bool large) {
    constexpr int W = Lanes<T>::W, L = PANEL<T>;
    const Axis& a = t.rows[tile.stretch];
    int rows = (tile.rows + L - 1) / L * L;
    int64_t panels = t.features ? rows * t.width : 0;
    T* slab = (T*)scratch.get((rows * SLAB<T> + panels + (t.features ? L * t.width : 0)) * sizeof(T));
    if (!slab) return 1;
    T *lines = slab + rows * SLAB<T>, *spare = lines + panels;
    Writer<T, D> out(t, a, tile, large);
    memset(slab + tile.rows * SLAB<T>, 0, (rows - tile.rows) * SLAB<T> * sizeof(T));
    auto slabs = [&](auto&& each) INLINE_LAMBDA {
        for (int64_t f = 0; f < t.width; f += SLAB<T>) each(f, int(t.width - f < SLAB<T> ? t.width - f : SLAB<T>));
    };
    slabs([&](int64_t f, int n) INLINE_LAMBDA {
        in.read(slab, f, n, f + SLAB<T> < t.width);
        if (a.rounds) mix_axis(slab, SLAB<T>, tile.rows, a.block, (n + W - 1) / W, a.inverse, norm<T>(a));
        // Reading is spread over the slab's stages: there are few places for lines that are on their way.
        bool last = f + SLAB<T> >= t.width;
        auto fetch = [&](int i) INLINE_LAMBDA {
            if (!last) {
                if (i < in.rows) in.fetch(i, f + SLAB<T>, in.LINES / 2, in.LINES);
            } else if (i < then.rows) {
                then.fetch(i, 0, 0, in.LINES);
            }
        };
        if (t.features) return slab_to_panels(slab, lines, rows, t.width, f, n, features, fetch);
        for (int i = 0; i < tile.rows; ++i) {
            fetch(i);
            const T* line = slab + i * SLAB<T>;
            int j = 0;
            for (; j + L <= n; j += L) out.line(i, f + j, [&](int h) INLINE_LAMBDA { return *(const vec<T>*)(line + j + h * W); });
            for (; j < n; j += W) out.write(i, f + j, n - j < W ? n - j : W, *(const vec<T>*)(line + j));
        }
    });
    if (!t.features) return 0;
    for (int first = 0; first < tile.rows; first += L) {
        T* mixed = mix_features(lines + first * t.width, spare, *t.features, features);
        int some = tile.rows - first < L ? tile.rows - first : L;
        slabs([&](int64_t f, int n) INLINE_LAMBDA { panel_to_rows(mixed, first, some, f, n, features, out); });
    }
    return 0;
}

// Tiles of one transform, from `i` on; take() gives the next one. Returns the first that is of another, in `i`.
template <class S, class T, class D, class Take>
static int run_tiles(const Transform* all, const Features<T>* features, const Tile* tile, int64_t tiles, int64_t& i, Take& take, bool large) {
    Reader<S, T> readers[2], *in = readers, *then = readers + 1;
    const int32_t which = tile[i].transform;
    const Transform& t = all[which];
    int failed = 0;
    in->locate(t, tile[i]);
    for (bool follows = true; follows;) {
        int64_t next = take();
        follows = next < tiles && tile[next].transform == which;
        then->rows = 0;
        if (follows) then->locate(t, tile[next]);
        failed |= run_tile<S, T, D>(t, features[which], tile[i], *in, *then, large);
        Reader<S, T>* swap = in;
        in = then;
        then = swap;
        i = next;
    }
    return failed;
}

template <class T, class Take>
static int run_any(const Transform* all, const Features<T>* x, const Tile* tile, int64_t tiles, int64_t& i, Take& take, bool large) {
    if constexpr (sizeof(T) == sizeof(double)) {
        return run_tiles<double, double, double>(all, x, tile, tiles, i, take, large);
    } else {
        const Transform& t = all[tile[i].transform];
        if (t.source_type == BFLOAT16) return run_tiles<uint16_t, float, float>(all, x, tile, tiles, i, take, large);
        if (t.target_type == BFLOAT16) return run_tiles<float, float, uint16_t>(all, x, tile, tiles, i, take, large);
        return run_tiles<float, float, float>(all, x, tile, tiles, i, take, large);
    }
}

// Above this many bytes results leave the caches anyway.
constexpr int64_t LARGE = 8 << 20;

template <class T> static int transform_as(const Transform* all, int64_t count, int threads) {
    int64_t tiles = 0, memory = 0, bytes = 0;
    for (int64_t t = 0; t < count; ++t) {
        for (int64_t s = 0; s < all[t].stretches; ++s) {
            tiles += tiles_of(all[t].rows[s]);
            bytes += all[t].rows[s].length * all[t].width * sizeof(T);
        }
        if (all[t].features) memory += (Features<T>::bytes(*all[t].features) + 63) & ~63;
    }
    char* plan = (char*)malloc(tiles * sizeof(Tile) + count * sizeof(Features<T>) + memory + 64);
    if (!plan) return 1;
    Features<T>* features = (Features<T>*)plan;
    Tile *tile = (Tile*)(features + count), *end = tile;
    for (int64_t t = 0; t < count; ++t)
        for (int64_t s = 0, base = 0; s < all[t].stretches; base += all[t].rows[s++].length)
            end = add_tiles(end, all[t].rows[s], int32_t(t), s, base);
    char* axis = (char*)(((uintptr_t)end + 63) & ~uintptr_t(63));
    for (int64_t t = 0; t < count; ++t)
        if (all[t].features) {
            features[t].fill(*all[t].features, axis);
            axis += (Features<T>::bytes(*all[t].features) + 63) & ~63;
        }
    int failed = 0;
    int64_t taken = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        auto take = [&taken]() {
            int64_t i;
#pragma omp atomic capture
            i = taken++;
            return i;
        };
        for (int64_t i = take(); i < tiles;) failed |= run_any<T>(all, features, tile, tiles, i, take, bytes > LARGE);
        fence();
        scratch.shrink();
    }
    erase(plan, tiles * sizeof(Tile) + count * sizeof(Features<T>) + memory + 64);  // it holds the keys of features
    free(plan);
    return failed;
}

static int transform(const Transform* all, int64_t count, int threads) {
    if (count == 0) return 0;
    return all[0].source_type == FLOAT64 ? transform_as<double>(all, count, threads)
                                         : transform_as<float>(all, count, threads);
}

}  // namespace TEMPO_ISA
