// All tiles of some transforms, over the threads.
#pragma once
#include "tile.h"

namespace TEMPO_ISA {

static thread_local Scratch scratch;

template <class S, class T, class D>
static int run_tile(const Transform& t, const Features<T>& features, const Tile& tile, bool large) {
    constexpr int W = Lanes<T>::W, L = PANEL<T>;
    const Axis& a = t.rows[tile.stretch];
    int rows = (tile.rows + L - 1) / L * L;
    int64_t panels = t.features ? rows * t.width : 0;
    T* slab = (T*)scratch.get((rows * SLAB<T> + panels + (t.features ? L * t.width : 0)) * sizeof(T));
    if (!slab) return 1;
    T *lines = slab + rows * SLAB<T>, *spare = lines + panels;
    Reader<S, T> in(t, a, tile);
    Writer<T, D> out(t, a, tile, large);
    memset(slab + tile.rows * SLAB<T>, 0, (rows - tile.rows) * SLAB<T> * sizeof(T));
    auto slabs = [&](auto&& each) INLINE_LAMBDA {
        for (int64_t f = 0; f < t.width; f += SLAB<T>) each(f, int(t.width - f < SLAB<T> ? t.width - f : SLAB<T>));
    };
    slabs([&](int64_t f, int n) INLINE_LAMBDA {
        in.read(slab, tile.rows, f, n, f + SLAB<T> < t.width);
        if (a.rounds) mix_axis(slab, SLAB<T>, tile.rows, a.block, (n + W - 1) / W, a.inverse, norm<T>(a));
        // Reading is spread over the slab's stages: there are few places for lines that are on their way.
        int64_t next = f + SLAB<T>;
        auto fetch = [&](int i) INLINE_LAMBDA {
            if (next < t.width && i < tile.rows) in.fetch(i, next, in.LINES / 2, in.LINES);
        };
        if (t.features) return slab_to_panels(slab, lines, rows, t.width, f, n, features, fetch);
        for (int i = 0; i < tile.rows; ++i) {
            fetch(i);
            for (int j = 0; j < n; j += W)
                out.write(i, f + j, n - j < W ? n - j : W, *(const vec<T>*)(slab + i * SLAB<T> + j));
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

template <class T> static int run_any(const Transform& t, const Features<T>& x, const Tile& tile, bool large) {
    if constexpr (sizeof(T) == sizeof(double)) {
        return run_tile<double, double, double>(t, x, tile, large);
    } else {
        if (t.source_type == BFLOAT16) return run_tile<uint16_t, float, float>(t, x, tile, large);
        if (t.target_type == BFLOAT16) return run_tile<float, float, uint16_t>(t, x, tile, large);
        return run_tile<float, float, float>(t, x, tile, large);
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
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
#pragma omp for schedule(dynamic, 4)
        for (int64_t i = 0; i < tiles; ++i)
            failed |= run_any<T>(all[tile[i].transform], features[tile[i].transform], tile[i], bytes > LARGE);
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
