// Images to the points of their tiles, X = M d M^T for every tile d, and the adjoint d = M^T X M, where
// tiles that overlap add up. One axis after the other, a row of tiles and a block of channels at a time:
//
//     pixels (side, columns, channels)   the image's rows, channels together, zeros around: L2 cache
//     half (points, columns, channels)   one axis done
//     points (points, points) of each tile, a run of channels each
//
// A row of tiles begins with what its predecessor overlaps. In the adjoint a pixel has at most two terms
// along an axis, so the order in which they are added does not matter.
#pragma once
#include "filtering.h"
#include "layout.h"

namespace TEMPO_ISA {

template <class M, class T> struct TilePass {
    static constexpr int W = Lanes<T>::W, L = LINE<T>, V = L / W, P = M::points, S = M::side, KEPT = S - M::m;
    const Tiles& t;
    int64_t columns, rows, block;
    Pieces pieces;
    bool far;

    TilePass(const Tiles& t_, int threads) : t(t_) {
        const Image& x = t.image;
        columns = t.across ? (t.across - 1) * M::m + S : 0;
        rows = x.batch * t.down * t.across;
        block = channel_block<T>(x.channels, (S + P) * most(columns, 1) * sizeof(T));
        pieces = Pieces{x.batch, 1, x.channels, block, t.down, t.down};
        pieces.strip = strip_for(pieces.count(), t.down, threads);
        far = P * P * rows * x.channels * int64_t(sizeof(T)) > FAR;
    }

    // Rows a to S of the window that starts at row h of the image; zeros outside.
    void read(T* pixels, const Piece& p, int64_t room, int64_t h, int a) const {
        int64_t line = columns * room, lo = least(most(a, -h), S), hi = most(lo, least(S, t.image.height - h));
        memset(pixels + a * line, 0, (lo - a) * line * sizeof(T));
        memset(pixels + hi * line, 0, (S - hi) * line * sizeof(T));
        Grid<T> to{pixels + lo * line + t.left * room, line, room, t.image.width, room};
        fetch<T>(t.image, p.b, h + lo, hi - lo, p.c, p.channels, to);
    }

    T* points_of(const Piece& p, int64_t i) const {
        return (T*)t.points + (p.b * t.down + i) * t.across * t.image.channels + p.c;
    }

    int to_points(const Piece& p) const {
        int64_t room = lines_up<T>(p.channels), line = columns * room, apart = rows * t.image.channels;
        T* pixels = (T*)working.get((S + P) * line * sizeof(T));
        if (!pixels) return 1;
        T* half = pixels + S * line;
        bool past = far && aligned((T*)t.points + p.c, t.image.channels);
        memset(pixels, 0, S * line * sizeof(T));
        for (int64_t i = p.first; i < p.last; ++i) {
            int kept = i == p.first ? 0 : KEPT;
            memmove(pixels, pixels + M::m * line, kept * line * sizeof(T));
            read(pixels, p, room, i * M::m - t.top, kept);
            for (int64_t k = 0; k < line; k += W) {
                vec<T> x[S], y[P];
                for (int a = 0; a < S; ++a) x[a] = *(const vec<T>*)(pixels + a * line + k);
                forward<M, T>(x, y);
                for (int q = 0; q < P; ++q) *(vec<T>*)(half + q * line + k) = y[q];
            }
            T* out = points_of(p, i);
            for (int64_t j = 0; j < t.across; ++j, out += t.image.channels)
                for (int q = 0; q < P; ++q)
                    for (int64_t c = 0; c < p.channels; c += L) {
                        vec<T> lines[P][V];
                        for (int v = 0; v < V; ++v) {
                            vec<T> x[S], y[P];
                            for (int e = 0; e < S; ++e)
                                x[e] = *(const vec<T>*)(half + q * line + (j * M::m + e) * room + c + v * W);
                            forward<M, T>(x, y);
                            for (int r = 0; r < P; ++r) lines[r][v] = y[r];
                        }
                        for (int r = 0; r < P; ++r) store_line(out + (q * P + r) * apart + c, lines[r], p.channels - c, past);
                    }
        }
        return 0;
    }

    // M^T along one axis of the tiles of row i, added up where they overlap.
    INLINE_MEMBER void columns_of(const Piece& p, int64_t i, int64_t room, T* half) const {
        int64_t line = columns * room, apart = rows * t.image.channels;
        const T* in = points_of(p, i);
        for (int64_t j = 0; j < t.across; ++j, in += t.image.channels)
            for (int q = 0; q < P; ++q)
                for (int64_t c = 0; c < p.channels; c += W) {
                    vec<T> x[P], y[S];
                    for (int r = 0; r < P; ++r) {
                        const T* from = in + (q * P + r) * apart + c;
                        x[r] = load_some(from, p.channels - c);
                        if (c % L == 0) __builtin_prefetch(from + t.image.channels);
                    }
                    backward<M, T>(x, y);
                    T* to = half + q * line + j * M::m * room + c;
                    for (int e = 0; e < S; ++e) {
                        vec<T>* pixel = (vec<T>*)(to + e * room);
                        *pixel = e < KEPT && j > 0 ? *pixel + y[e] : y[e];
                    }
                }
    }

    // M^T along the other axis: row a of the window to row[a], which begins at the image's first column. The
    // rows kept from the row of tiles before are added to the first ones, and replaced by the last ones.
    INLINE_MEMBER void rows_of(const T* half, int64_t room, T* kept, bool add, T* const* row) const {
        int64_t line = columns * room, end = (t.left + t.image.width) * room;
        for (int64_t k = t.left * room; k < end; k += W) {
            vec<T> x[P], y[S];
            for (int q = 0; q < P; ++q) x[q] = *(const vec<T>*)(half + q * line + k);
            backward<M, T>(x, y);
            for (int a = 0; a < KEPT && add; ++a) y[a] += *(const vec<T>*)(kept + a * line + k);
            for (int a = 0; a < KEPT; ++a) *(vec<T>*)(kept + a * line + k) = y[M::m + a];
            for (int a = 0; a < S; ++a)
                if (row[a]) *(vec<T>*)(row[a] + k - t.left * room) = y[a];
        }
    }

    int from_points(const Piece& p) const {
        const Image& x = t.image;
        int64_t room = lines_up<T>(p.channels), line = columns * room, wide = x.width * room;
        T* half = (T*)working.get(((P + KEPT) * line + S * wide + L * room) * sizeof(T));
        if (!half) return 1;
        T *kept = half + P * line, *done = kept + KEPT * line;
        // Pixels not written yet: `held` of them stand in `done`. Where rows follow one another, whole cache
        // lines leave, and the rest waits for the next row of tiles.
        bool flat = x.to_pixel == 1 && x.to_row == x.width;
        int64_t held = 0, next = most(0, p.first * M::m - t.top) * x.width;
        // A strip starts with what the row of tiles before it sends into its first rows.
        for (int64_t i = p.first - (p.first > 0 && KEPT > 0); i < p.last; ++i) {
            bool own = i >= p.first, last = i + 1 == p.last;
            int64_t h = i * M::m - t.top, finished = 0;
            T* row[S];
            for (int a = 0; a < S; ++a) {
                bool here = own && h + a >= 0 && h + a < x.height && (a < M::m || i + 1 == t.down);
                row[a] = here ? done + held * room + finished++ * wide : nullptr;
            }
            columns_of(p, i, room, half);
            rows_of(half, room, kept, own && i > 0, row);
            held += finished * x.width;
            if (!flat) {
                place<T>(x, p.b, next / x.width, finished, p.c, p.channels, Grid<const T>{done, wide, room, x.width, room});
                next += held;
                held = 0;
                continue;
            }
            int64_t leave = last ? held : (next + held) / L * L - next;
            if (leave <= 0) continue;
            Grid<const T> from{done, 0, room, leave, room};
            pixels_to_planes(from, leave, p.channels, pixel_of<T>(x, p.b, p.c, 0, 0) + next, x.to_channel, far);
            held -= leave;
            next += leave;
            memmove(done, done + leave * room, held * room * sizeof(T));
        }
        return 0;
    }
};

template <class M, class T, bool TO_POINTS> static int tiles_as(const Tiles& t, int threads) {
    TilePass<M, T> pass(t, threads);
    return each_piece(pass.pieces, threads, [&](const Piece& p) { return TO_POINTS ? pass.to_points(p) : pass.from_points(p); });
}
template <class T, bool TO_POINTS> static int tiles_of_type(const Tiles& t, int threads) {
    if (t.m == 2) return t.side == 4 ? tiles_as<Input2, T, TO_POINTS>(t, threads) : tiles_as<Output2, T, TO_POINTS>(t, threads);
    return t.side == 6 ? tiles_as<Input4, T, TO_POINTS>(t, threads) : tiles_as<Output4, T, TO_POINTS>(t, threads);
}
template <bool TO_POINTS> static int tiles_pass(const Tiles* t, int threads) {
    return t->image.type == FLOAT64 ? tiles_of_type<double, TO_POINTS>(*t, threads) : tiles_of_type<float, TO_POINTS>(*t, threads);
}

}  // namespace TEMPO_ISA
