// One tile: some rows of a tensor, through both axes, from memory to memory once.
//
//     rows -> slab: (x - before) in_scale, H over the rows       64 features at a time, in the L1 cache
//     slab -> panels: transposed, so that a feature permutation moves whole lines of rows
//     panels: H, permutation and scale, H over the features      in the L2 cache
//     panels -> rows: transposed back, out_scale, + after
//
// Addresses depend on the secret permutations alone, never on values.
#pragma once
#include "hadamard.h"
#include "plan.h"
#include "transpose.h"

namespace TEMPO_ISA {

template <class T> constexpr int SLAB = 256 / sizeof(T);  // features: four cache lines of each row

template <class S, class T> struct Reader {
    static constexpr int LINES = SLAB<T> * sizeof(S) / 64;
    const S* row[MOST];
    T scale[MOST];
    const T* before;
    int rows;

    void locate(const Transform& t, const Tile& tile) {
        const Axis& a = t.rows[tile.stretch];
        before = (const T*)t.before;
        rows = tile.rows;
        for (int i = 0; i < rows; ++i) {
            int64_t position = tile.first + i;
            int64_t r = tile.base + (a.in_index ? a.in_index[position] : position);
            if (t.source_rows) r = t.source_rows[r];
            row[i] = (const S*)t.source + r * t.source_stride;
            scale[i] = in_factor<T>(a, position);
        }
    }

    // Lines lo to hi of the slab of row i that begins at feature f, on their way into the caches.
    INLINE_MEMBER void fetch(int i, int64_t f, int lo, int hi) const {
        for (int line = lo; line < hi; ++line) __builtin_prefetch((const char*)(row[i] + f) + 64 * line);
    }

    // (rows, n features from f on) into slab; half of the next slab is fetched meanwhile.
    INLINE_MEMBER void read(T* slab, int64_t f, int n, bool more) const {
        constexpr int W = Lanes<T>::W;
        for (int i = 0; i < rows; ++i) {
            const S* from = row[i] + f;
            T* to = slab + i * SLAB<T>;
            vec<T> s = splat(scale[i]);
            if (more) fetch(i, f + SLAB<T>, 0, LINES / 2);
            int j = 0;
            for (; j + W <= n; j += W) {
                vec<T> x = load(from + j);
                if (before) x -= load(before + f + j);
                *(vec<T>*)(to + j) = x * s;
            }
            if (j < n) {
                S part[W] = {};
                T centre[W] = {};
                memcpy(part, from + j, (n - j) * sizeof(S));
                if (before) memcpy(centre, before + f + j, (n - j) * sizeof(T));
                *(vec<T>*)(to + j) = (load(part) - load(centre)) * s;
            }
        }
    }
};

template <class T, class D> struct Writer {
    D* row[MOST];
    T scale[MOST];
    const T* after;
    bool past_caches;

    Writer(const Transform& t, const Axis& a, const Tile& tile, bool large) : after((const T*)t.after) {
        for (int i = 0; i < tile.rows; ++i) {
            int64_t position = tile.first + i;
            int64_t r = tile.base + (a.out_index ? a.out_index[position] : position);
            if (t.target_rows) r = t.target_rows[r];
            row[i] = (D*)t.target + r * t.target_stride;
            scale[i] = out_factor<T>(a, position);
        }
        past_caches = large && sizeof(D) == sizeof(T) && (uintptr_t)t.target % 64 == 0 &&
                      t.target_stride * sizeof(D) % 64 == 0;
    }

    // One expression for all ways of writing, so that none rounds otherwise. shift: null, or a vector of `after`,
    // which is not always added: -0 + 0 is 0.
    INLINE_MEMBER static vec<T> placed(vec<T> x, vec<T> scale, const T* shift) { return shift ? x * scale + load(shift) : x * scale; }

    // Row i, a whole cache line of features from f on: from(h) is vector h of it.
    template <class From> INLINE_MEMBER void line(int i, int64_t f, From from) const {
        constexpr int W = Lanes<T>::W, V = int(64 / sizeof(T)) / W;
        D* to = row[i] + f;
        vec<T> s = splat(scale[i]);
        auto entry = [&](int h) INLINE_LAMBDA { return placed(from(h), s, after ? after + f + h * W : nullptr); };
        if constexpr (sizeof(D) == sizeof(T)) {
            if (past_caches) {
                for (int h = 0; h < V; ++h) stream(to + h * W, entry(h));
                return;
            }
        }
        for (int h = 0; h < V; ++h) store(to + h * W, entry(h));
    }

    // Row i, n features from f on (at most a vector).
    INLINE_MEMBER void write(int i, int64_t f, int n, vec<T> x) const {
        vec<T> s = splat(scale[i]);
        if (n == Lanes<T>::W) {
            x = placed(x, s, after ? after + f : nullptr);
            D* to = row[i] + f;
            if constexpr (sizeof(D) == sizeof(T)) {
                if (past_caches) return stream(to, x);
            }
            return store(to, x);
        }
        D part[Lanes<T>::W];
        T shift[Lanes<T>::W] = {};
        if (after) memcpy(shift, after + f, n * sizeof(T));
        store(part, placed(x, s, after ? shift : nullptr));
        memcpy(row[i] + f, part, n * sizeof(D));
    }
};

// Lines lie in panels: one cache line of rows for every feature, so that a panel stays in the caches while
// its features are mixed, and a permutation moves whole cache lines.
template <class T> constexpr int PANEL = 64 / sizeof(T);

// fetch(i): called for every row meanwhile, or in a slab that is not full for as large a part of the rows.
template <class T, class Fetch>
INLINE void slab_to_panels(const T* slab, T* panels, int64_t rows, int64_t width, int64_t f, int n, const Features<T>& x, Fetch fetch) {
    constexpr int W = Lanes<T>::W;
    for (int j = 0; j < n; j += W)
        for (int64_t i = 0; i < rows; i += W) {
            T* panel = panels + i / PANEL<T> * PANEL<T> * width + i % PANEL<T>;
            vec<T> v[W];
            for (int64_t k = j * W / SLAB<T>; k < (j + W) * W / SLAB<T>; ++k) fetch(int(i + k));
            for (int k = 0; k < W; ++k) v[k] = *(const vec<T>*)(slab + (i + k) * SLAB<T> + j);
            transpose(v);
            int count = n - j < W ? n - j : W;
            for (int k = 0; k < count; ++k)
                *(vec<T>*)(panel + int64_t(x.in_line[f + j + k]) * PANEL<T>) = v[k] * x.in[f + j + k];
        }
}

// H over the features of one panel, `rounds` times. It ends in one of the two buffers: which, is returned.
template <class T> INLINE T* mix_features(T* lines, T* other, const Axis& a, const Features<T>& x) {
    constexpr int W = Lanes<T>::W, L = PANEL<T>, columns = L / W;
    T n = norm<T>(a);
    if (a.rounds) mix_axis(lines, L, a.length, a.block, columns, a.inverse, n);
    for (int r = 1; r < a.rounds; ++r) {
        const int32_t* index = a.middle_index + (r - 1) * a.length;
        const T* scale = x.middle + (r - 1) * a.length;
        auto gather = [=](int64_t i, int c) INLINE_LAMBDA {
            return *(const vec<T>*)(lines + int64_t(index[i]) * L + c * W) * scale[i];
        };
        bool tail = a.length % a.block != 0;
        // Blocks that H takes while they are gathered; an inverse starts with the tail window.
        int64_t fused = a.block == 1 || (tail && a.inverse) ? 0 : whole(a);
        for (int64_t i = 0; i < fused; i += a.block)
            for (int c = 0; c < columns; ++c)
                hadamard(other + i * L + c * W, int64_t(L), a.block, [=](int k) INLINE_LAMBDA { return gather(i + k, c); });
        for (int64_t i = fused; i < a.length; ++i)
            for (int c = 0; c < columns; ++c) *(vec<T>*)(other + i * L + c * W) = gather(i, c);
        if (fused == 0)
            mix_axis(other, L, a.length, a.block, columns, a.inverse, n);
        else if (tail)
            mix(other + (a.length - a.block) * L, L, a.block, columns, [=](int k) INLINE_LAMBDA { return bent_sign(k, a.block) * n; });
        T* swap = lines;
        lines = other;
        other = swap;
    }
    return lines;
}

// Features f to f + n of a panel into its rows `first` on, a cache line of each row at a time.
template <class T, class D>
INLINE void panel_to_rows(const T* lines, int first, int rows, int64_t f, int n, const Features<T>& x, const Writer<T, D>& out) {
    constexpr int W = Lanes<T>::W, L = PANEL<T>;
    for (int i = 0; i < rows; i += W) {
        int some = rows - i < W ? rows - i : W;
        for (int j = 0; j < n; j += L) {
            vec<T> v[L / W][W];
            for (int h = 0; h < L / W; ++h) {
                for (int k = 0; k < W; ++k) {
                    int64_t g = f + (j + h * W + k < n ? j + h * W + k : 0);
                    v[h][k] = *(const vec<T>*)(lines + int64_t(x.out_line[g]) * L + i) * x.out[g];
                }
                transpose(v[h]);
            }
            if (some == W && n - j >= L) {
                for (int k = 0; k < W; ++k) out.line(first + i + k, f + j, [&](int h) INLINE_LAMBDA { return v[h][k]; });
                continue;
            }
            for (int k = 0; k < some; ++k)
                for (int h = 0; h < L / W; ++h) {
                    int left = n - j - h * W;
                    if (left > 0) out.write(first + i + k, f + j + h * W, left < W ? left : W, v[h][k]);
                }
        }
    }
}

}  // namespace TEMPO_ISA
