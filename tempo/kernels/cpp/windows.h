// Windows of an image as rows, and the adjoint, where windows that overlap add up.
//
// A piece is a strip of rows and a block of channels of one group. Planes are turned into pixels in the L2
// cache first; an image whose channels lie together is read where it is. The adjoint gathers: a strip of
// pixels collects every window that it stands in, so that no two threads write the same pixel.
#pragma once
#include "layout.h"

namespace TEMPO_ISA {

template <class T> INLINE void copy_run(T* to, const T* from, int64_t n, bool past_caches) {
    constexpr int W = Lanes<T>::W;
    int64_t k = 0;
    if (past_caches)
        for (; k + W <= n; k += W) stream(to + k, load(from + k));
    else
        for (; k + W <= n; k += W) store(to + k, load(from + k));
    for (; k < n; ++k) to[k] = from[k];
}
template <class T> INLINE void clear_run(T* to, int64_t n) { memset(to, 0, n * sizeof(T)); }
template <class T> INLINE void add_run(T* to, const T* from, int64_t n) {
    constexpr int W = Lanes<T>::W;
    int64_t k = 0;
    for (; k + W <= n; k += W) store(to + k, load(to + k) + load(from + k));
    for (; k < n; ++k) to[k] += from[k];
}

template <class T> struct WindowPass {
    const Windows& t;
    int64_t group, window;  // channels of a group, numbers of a row
    bool far;

    explicit WindowPass(const Windows& t_) : t(t_) {
        group = t.image.channels / t.groups;
        window = t.kernel[0] * t.kernel[1] * group;
        far = t.groups * t.image.batch * t.down * t.across * window * int64_t(sizeof(T)) > FAR;
    }

    T* row(const Piece& p, int64_t i, int64_t j) const {
        return (T*)t.rows + (((p.g * t.image.batch + p.b) * t.down + i) * t.across + j) * window + p.c;
    }
    // Offsets e of a window, lo to hi, that lie within the image, for column j.
    INLINE_MEMBER void inside(int64_t j, int64_t& lo, int64_t& hi) const {
        int64_t w = j * t.stride[1] - t.left, d = t.dilation[1];
        lo = w < 0 ? (-w + d - 1) / d : 0;
        hi = t.image.width > w ? (t.image.width - w + d - 1) / d : 0;
        lo = least(lo, t.kernel[1]);
        hi = most(lo, least(hi, t.kernel[1]));
    }

    // Whether some window of rows i_lo to i_hi has row h of the image in it.
    bool met(int64_t h, int64_t i_lo, int64_t i_hi) const {
        for (int64_t a = 0; a < t.kernel[0]; ++a) {
            int64_t from = h + t.top - a * t.dilation[0];
            if (from >= i_lo * t.stride[0] && from % t.stride[0] == 0 && from / t.stride[0] < i_hi) return true;
        }
        return false;
    }

    Pieces pieces(int64_t height, int64_t rows_each, int64_t rows_more) const {
        const Image& x = t.image;
        int64_t line = most(x.width, 1) * sizeof(T);
        int64_t block = channel_block<T>(group, 4 * line);
        int64_t fits = WORKING / (line * block);  // rows of the image
        int64_t strip = most(1, least(height, (fits - rows_more) / rows_each));
        return Pieces{x.batch, t.groups, group, block, height, strip};
    }

    Pieces pieces_to() const {
        int64_t more = (t.kernel[0] - 1) * t.dilation[0] + 1 - t.stride[0];
        return pieces(t.down, t.stride[0], most(0, more));
    }

    int to_windows(const Piece& p) const {
        const Image& x = t.image;
        int64_t h_lo = most(0, p.first * t.stride[0] - t.top);
        int64_t h_hi = least(x.height, (p.last - 1) * t.stride[0] - t.top + (t.kernel[0] - 1) * t.dilation[0] + 1);
        int64_t room = lines_up<T>(p.channels), c = p.g * group + p.c;
        const T* base;
        int64_t to_row, to_pixel;
        if (x.to_channel == 1) {
            base = pixel_of<T>(x, p.b, c, 0, 0);
            to_row = x.to_row;
            to_pixel = x.to_pixel;
        } else {
            room = p.channels < LINE<T> ? p.channels : room;  // few channels: their windows are one run
            T* memory = (T*)working.get(most(1, h_hi - h_lo) * x.width * room * sizeof(T));
            if (!memory) return 1;
            to_row = x.width * room;
            to_pixel = room;
            for (int64_t h = h_lo; h < h_hi;) {
                int64_t end = h;
                while (end < h_hi && met(end, p.first, p.last)) ++end;
                fetch<T>(x, p.b, h, end - h, c, p.channels, Grid<T>{memory + (h - h_lo) * to_row, to_row, room, x.width, room});
                h = most(end, h + 1);
            }
            base = memory - h_lo * to_row;
        }
        bool past = far && aligned((T*)t.rows + p.c, group) && p.channels % LINE<T> == 0;
        bool together = p.channels == group && to_pixel == group && t.dilation[1] == 1;
        for (int64_t i = p.first; i < p.last; ++i)
            for (int64_t j = 0; j < t.across; ++j) {
                int64_t lo, hi;
                inside(j, lo, hi);
                T* to = row(p, i, j);
                for (int64_t a = 0; a < t.kernel[0]; ++a, to += t.kernel[1] * group) {
                    int64_t h = i * t.stride[0] - t.top + a * t.dilation[0];
                    bool out = h < 0 || h >= x.height;
                    int64_t first = out ? t.kernel[1] : lo, end = out ? t.kernel[1] : hi;
                    const T* from = base + h * to_row + (j * t.stride[1] - t.left) * to_pixel;
                    for (int64_t e = 0; e < first; ++e) clear_run(to + e * group, p.channels);
                    if (together && first < end)
                        copy_run(to + first * group, from + first * to_pixel, (end - first) * group, past);
                    else
                        for (int64_t e = first; e < end; ++e)
                            copy_run(to + e * group, from + e * t.dilation[1] * to_pixel, p.channels, past);
                    for (int64_t e = end; e < t.kernel[1]; ++e) clear_run(to + e * group, p.channels);
                }
            }
        return 0;
    }

    Pieces pieces_from() const { return pieces(t.image.height, 1, 0); }

    int from_windows(const Piece& p) const {
        const Image& x = t.image;
        int64_t room = p.channels < LINE<T> ? p.channels : lines_up<T>(p.channels), line = x.width * room;
        T* pixels = (T*)working.get(most(1, (p.last - p.first) * line + LINE<T>) * sizeof(T));
        if (!pixels) return 1;
        clear_run(pixels, (p.last - p.first) * line);
        bool together = p.channels == group && room == group && t.dilation[1] == 1;
        for (int64_t h = p.first; h < p.last; ++h)
            for (int64_t a = 0; a < t.kernel[0]; ++a) {
                int64_t i = h + t.top - a * t.dilation[0];
                if (i < 0 || i % t.stride[0] || (i /= t.stride[0]) >= t.down) continue;
                T* to = pixels + (h - p.first) * line;
                for (int64_t j = 0; j < t.across; ++j) {
                    int64_t lo, hi;
                    inside(j, lo, hi);
                    const T* from = row(p, i, j) + a * t.kernel[1] * group;
                    T* pixel = to + (j * t.stride[1] - t.left) * room;
                    if (together && lo < hi)
                        add_run(pixel + lo * room, from + lo * group, (hi - lo) * group);
                    else
                        for (int64_t e = lo; e < hi; ++e) add_run(pixel + e * t.dilation[1] * room, from + e * group, p.channels);
                }
            }
        place<T>(x, p.b, p.first, p.last - p.first, p.g * group + p.c, p.channels, Grid<const T>{pixels, line, room, x.width, room}, far);
        return 0;
    }
};

template <class T, bool TO_WINDOWS> static int windows_as(const Windows& t, int threads) {
    WindowPass<T> pass(t);
    Pieces pieces = TO_WINDOWS ? pass.pieces_to() : pass.pieces_from();
    return each_piece(pieces, threads, [&](const Piece& p) { return TO_WINDOWS ? pass.to_windows(p) : pass.from_windows(p); });
}
template <bool TO_WINDOWS> static int windows_pass(const Windows* t, int threads) {
    return t->image.type == FLOAT64 ? windows_as<double, TO_WINDOWS>(*t, threads) : windows_as<float, TO_WINDOWS>(*t, threads);
}

}  // namespace TEMPO_ISA
