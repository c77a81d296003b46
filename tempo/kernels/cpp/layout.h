// Images whose pixels lie together (planes: NCHW) and images whose channels do, and the way between.
//
// A cache line of pixels of as many channels as a vector holds is transposed in registers. Lines are
// written whole, so that large results can go past the caches.
#pragma once
#include "images.h"
#include "plan.h"
#include "transpose.h"

namespace TEMPO_ISA {

template <class T> constexpr int LINE = 64 / sizeof(T);
template <class T> INLINE int64_t lines_up(int64_t n) { return (n + LINE<T> - 1) / LINE<T> * LINE<T>; }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Pixel k of a run stands at base + k / width * row + k % width * pixel. `room`: channels that may be
// touched there, at least those of the image.
template <class T> struct Grid {
    T* base;
    int64_t row, pixel, width, room;

    template <int N> INLINE_MEMBER void locate(int64_t k, int n, T* (&at)[N]) const {
        int64_t w = k % width;
        T* line = base + k / width * row;
        for (int e = 0; e < n; ++e) {
            at[e] = line + w * pixel;
            if (++w == width) {
                w = 0;
                line += row;
            }
        }
    }
};

template <class T> INLINE vec<T> load_some(const T* p, int64_t n) {
    if (n >= Lanes<T>::W) return load(p);
    T part[Lanes<T>::W] = {};
    memcpy(part, p, n * sizeof(T));
    return load(part);
}
template <class T> INLINE void store_some(T* p, vec<T> v, int64_t n) {
    if (n >= Lanes<T>::W) return store(p, v);
    T part[Lanes<T>::W];
    store(part, v);
    memcpy(p, part, n * sizeof(T));
}
// A cache line, or the first n entries of one.
template <class T> INLINE void store_line(T* p, const vec<T>* v, int64_t n, bool past_caches) {
    constexpr int W = Lanes<T>::W, V = LINE<T> / W;
    if (n >= LINE<T>) {
        for (int h = 0; h < V; ++h) past_caches ? stream(p + h * W, v[h]) : store(p + h * W, v[h]);
        return;
    }
    for (int h = 0; h < V && h * W < n; ++h) store_some(p + h * W, v[h], n - h * W);
}
template <class T> INLINE bool aligned(const T* p, int64_t step) {
    return (uintptr_t)p % 64 == 0 && step * sizeof(T) % 64 == 0;
}

// Pixel k, channel c of `to` = from[c plane + k], for n pixels.
template <class T>
INLINE void planes_to_pixels(const T* from, int64_t plane, int64_t n, int64_t channels, const Grid<T>& to, bool past_caches) {
    constexpr int W = Lanes<T>::W, V = LINE<T> / W;
    T* at[W];
    for (int64_t k = 0; k < n; k += W) {
        int64_t first = n >= W ? least(k, n - W) : k;  // the last vector overlaps its predecessor
        int some = int(least(W, n - first));
        to.locate(first, some, at);
        for (int64_t c = 0; c < channels; c += LINE<T>) {
            vec<T> line[W][V];
            for (int h = 0; h < V; ++h) {
                vec<T> v[W];
                for (int i = 0; i < W; ++i) {
                    const T* p = from + least(c + h * W + i, channels - 1) * plane + first;
                    v[i] = load_some(p, some);
                    __builtin_prefetch(p + 4 * LINE<T>);
                }
                transpose(v);
                for (int e = 0; e < W; ++e) line[e][h] = v[e];
            }
            for (int e = 0; e < some; ++e) store_line(at[e] + c, line[e], to.room - c, past_caches);
        }
    }
}

// to[c plane + k] = pixel k, channel c of `from`, for n pixels. Some lines of pixels at a time for each
// channel, since every plane has pages of its own.
template <class T>
INLINE void pixels_to_planes(const Grid<const T>& from, int64_t n, int64_t channels, T* to, int64_t plane, bool past_caches) {
    constexpr int W = Lanes<T>::W, L = LINE<T>, V = L / W, SOME = 4 * L;
    past_caches = past_caches && aligned(to, plane);
    // The last line overlaps its predecessor; not where it would be written past the caches.
    bool overlaps = n >= L && !past_caches;
    const T* at[SOME];
    int64_t ahead = n > SOME ? SOME * from.pixel : 0;  // the same channels of the lines that come next
    for (int64_t k = 0; k < n; k += SOME) {
        int64_t first = overlaps ? least(k, n - L) : k, end = least(k + SOME, n);
        from.locate(first, int(end - first), at);
        for (int64_t c = 0; c < channels; c += W)
            for (int64_t s = first; s < end; s += L) {
                int64_t begin = overlaps ? least(s, end - L) : s;
                int some = int(least(L, end - begin));
                const T* const* pixel = at + (begin - first);
                vec<T> line[W][V];
                for (int h = 0; h < V; ++h) {
                    vec<T> v[W];
                    for (int e = 0; e < W; ++e) {
                        const T* p = pixel[least(h * W + e, some - 1)] + c;
                        v[e] = load_some(p, from.room - c);
                        __builtin_prefetch(p + ahead);
                    }
                    transpose(v);
                    for (int i = 0; i < W; ++i) line[i][h] = v[i];
                }
                for (int i = 0; i < least(W, channels - c); ++i) store_line(to + (c + i) * plane + begin, line[i], some, past_caches);
            }
    }
}

template <class T> INLINE T* pixel_of(const Image& x, int64_t b, int64_t c, int64_t h, int64_t w) {
    return (T*)x.data + b * x.to_image + c * x.to_channel + h * x.to_row + w * x.to_pixel;
}
// Runs of whole rows where they follow one another, single rows otherwise.
INLINE int64_t rows_of_run(const Image& x, int64_t count) { return x.to_row == x.width ? count : 1; }

// Rows h to h + count, channels c to c + channels, into `to`, whose width is the image's.
template <class T>
INLINE void fetch(const Image& x, int64_t b, int64_t h, int64_t count, int64_t c, int64_t channels, Grid<T> to, bool past_caches = false) {
    if (x.to_pixel == 1) {
        for (int64_t rows = rows_of_run(x, count); count > 0; count -= rows, h += rows, to.base += rows * to.row)
            planes_to_pixels(pixel_of<T>(x, b, c, h, 0), x.to_channel, rows * x.width, channels, to, past_caches);
        return;
    }
    for (; count > 0; --count, ++h, to.base += to.row)
        for (int64_t w = 0; w < x.width; ++w) {
            const T* from = pixel_of<T>(x, b, c, h, w);
            T* pixel = to.base + w * to.pixel;
            if (x.to_channel == 1)
                memcpy(pixel, from, channels * sizeof(T));
            else
                for (int64_t k = 0; k < channels; ++k) pixel[k] = from[k * x.to_channel];
        }
}

// The way back.
template <class T>
INLINE void place(const Image& x, int64_t b, int64_t h, int64_t count, int64_t c, int64_t channels, Grid<const T> from, bool past_caches = false) {
    if (x.to_pixel == 1) {
        for (int64_t rows = rows_of_run(x, count); count > 0; count -= rows, h += rows, from.base += rows * from.row)
            pixels_to_planes(from, rows * x.width, channels, pixel_of<T>(x, b, c, h, 0), x.to_channel, past_caches);
        return;
    }
    for (; count > 0; --count, ++h, from.base += from.row)
        for (int64_t w = 0; w < x.width; ++w) {
            T* to = pixel_of<T>(x, b, c, h, w);
            const T* pixel = from.base + w * from.pixel;
            if (x.to_channel == 1)
                memcpy(to, pixel, channels * sizeof(T));
            else
                for (int64_t k = 0; k < channels; ++k) to[k * x.to_channel] = pixel[k];
        }
}

// Pieces of work: images, groups, blocks of channels and strips of rows, each written by one thread. What
// is computed for a pixel does not depend on how they are cut.
struct Pieces {
    int64_t batch, groups, group, block, height, strip;
    int64_t blocks() const { return (group + block - 1) / block; }
    int64_t strips() const { return (height + strip - 1) / strip; }
    int64_t count() const { return batch * groups * blocks() * strips(); }
};
struct Piece {
    int64_t b, g, c, channels, first, last;  // c: within the group; rows first to last
    Piece(const Pieces& p, int64_t index) {
        int64_t s = index % p.strips();
        index /= p.strips();
        c = index % p.blocks() * p.block;
        index /= p.blocks();
        g = index % p.groups;
        b = index / p.groups;
        channels = least(p.block, p.group - c);
        first = s * p.strip;
        last = least(first + p.strip, p.height);
    }
};

// Bytes that a piece works on: about a second-level cache.
constexpr int64_t WORKING = 256 << 10;
// Above this many bytes results leave the caches anyway.
constexpr int64_t FAR = 8 << 20;

// Channels to take together, where each takes `bytes` of working memory: whole cache lines.
template <class T> INLINE int64_t channel_block(int64_t channels, int64_t bytes) {
    int64_t lines = most(1, WORKING / (bytes * LINE<T>)), all = lines_up<T>(channels) / LINE<T>;
    int64_t blocks = (all + lines - 1) / lines;
    return most(1, (all + blocks - 1) / blocks) * LINE<T>;
}
// Rows to take together: all, unless there is too little work for the threads.
INLINE int64_t strip_for(int64_t pieces, int64_t height, int threads) {
    int64_t wanted = pieces > 0 ? (4 * threads + pieces - 1) / pieces : 1;
    return most(1, height / most(1, wanted));
}

static thread_local Scratch working;

template <class F> static int each_piece(const Pieces& pieces, int threads, F&& work) {
    int failed = 0;
    int64_t count = pieces.count();
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < count; ++i) failed |= work(Piece(pieces, i));
        fence();
    }
    return failed;
}

// Rows (G, B H W, C / G) and images.
template <class T, bool TO_ROWS> static int rows_as(const Image& x, T* rows, int64_t groups, int threads) {
    int64_t group = x.channels / groups, all = x.batch * x.height * x.width;
    int64_t block = least(lines_up<T>(group), 8 * LINE<T>);
    Pieces pieces{x.batch, groups, group, block, x.height, most(1, least(x.height, WORKING / int64_t(sizeof(T)) / (block * most(x.width, 1))))};
    bool far = all * x.channels * int64_t(sizeof(T)) > FAR;
    return each_piece(pieces, threads, [&](const Piece& p) {
        T* base = rows + (p.g * all + (p.b * x.height + p.first) * x.width) * group + p.c;
        if constexpr (TO_ROWS) {
            Grid<T> to{base, x.width * group, group, x.width, p.channels};
            fetch<T>(x, p.b, p.first, p.last - p.first, p.g * group + p.c, p.channels, to, far && aligned(base, group));
        } else {
            Grid<const T> from{base, x.width * group, group, x.width, p.channels};
            place<T>(x, p.b, p.first, p.last - p.first, p.g * group + p.c, p.channels, from, far);
        }
        return 0;
    });
}

template <bool TO_ROWS> static int rows_pass(const Image* x, void* rows, int64_t groups, int threads) {
    return x->type == FLOAT64 ? rows_as<double, TO_ROWS>(*x, (double*)rows, groups, threads)
                              : rows_as<float, TO_ROWS>(*x, (float*)rows, groups, threads);
}

}  // namespace TEMPO_ISA
