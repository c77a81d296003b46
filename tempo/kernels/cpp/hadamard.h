// Orthonormal Hadamard butterflies over the lines of a tile, without the factor b^-1/2 (callers fold it
// into a scale they apply anyway).
//
// A line holds one entry of the mixed axis for all vectors of the other axis, so that each butterfly
// is an addition and a subtraction of whole vectors.
#pragma once
#include "simd.h"

namespace TEMPO_ISA {

// One vector of lines i0, i0 + h, i0 + 2 h, ... : an R-point butterfly in registers.
template <int R, class V> INLINE void butterfly(V* x) {
    for (int d = 1; d < R; d *= 2)
        for (int i = 0; i < R; ++i)
            if (!(i & d)) {
                V a = x[i], b = x[i + d];
                x[i] = a + b;
                x[i + d] = a - b;
            }
}

// One pass of radix R at distance h over b lines; `from(line)` yields the vector to start with.
template <int R, class T, class From> INLINE void radix(T* lines, int64_t stride, int b, int h, From from) {
    for (int base = 0; base < b; base += R * h)
        for (int k = base; k < base + h; ++k) {
            vec<T> x[R];
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) x[r] = from(k + r * h);
            butterfly<R>(x);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) *(vec<T>*)(lines + (k + r * h) * stride) = x[r];
        }
}

// H of b lines, one column of vectors wide. lines: aligned; stride: entries from line to line.
template <class T, class From> INLINE void hadamard(T* lines, int64_t stride, int b, From from) {
    auto again = [=](int i) INLINE_LAMBDA { return *(const vec<T>*)(lines + i * stride); };
    switch (b) {
        case 2: radix<2>(lines, stride, b, 1, from); return;
        case 4: radix<4>(lines, stride, b, 1, from); return;
        default: radix<8>(lines, stride, b, 1, from);
    }
    switch (b) {
        case 16: radix<2>(lines, stride, b, 8, again); return;
        case 32: radix<4>(lines, stride, b, 8, again); return;
        case 64: radix<8>(lines, stride, b, 8, again); return;
        case 128:
            radix<8>(lines, stride, b, 8, again);
            radix<2>(lines, stride, b, 64, again);
    }
}

// H of b lines in place, `columns` vectors wide, each line i first multiplied by factor(i).
template <class T, class Factor>
INLINE void mix(T* lines, int64_t stride, int b, int columns, Factor factor) {
    for (int c = 0; c < columns; ++c) {
        T* column = lines + c * Lanes<T>::W;
        hadamard(column, stride, b, [=](int i) INLINE_LAMBDA {
            return *(const vec<T>*)(column + i * stride) * factor(i);
        });
    }
}

// (-1)^(x0 x1 + x2 x3 + ...) over the bits of i: the signs of a bent function (Rothaus, 1976).
INLINE int bent_sign(int i, int b) {
    int parity = 0;
    for (int bit = 0; (1 << (bit + 1)) < b; bit += 2) parity ^= (i >> bit) & (i >> (bit + 1)) & 1;
    return parity ? -1 : 1;
}

// Blocks of b over `length` lines in place, and the overlapping tail window where b does not divide it
// (see tempo/kernels/plain.py). The factor b^-1/2 of the blocks is the caller's, that of the tail is not.
template <class T>
INLINE void mix_axis(T* lines, int64_t stride, int64_t length, int b, int columns, bool inverse, T norm) {
    int64_t whole = length - length % b;
    T* tail = lines + (length - b) * stride;
    auto blocks = [&]() INLINE_LAMBDA {
        for (int64_t i = 0; i < whole; i += b)
            mix(lines + i * stride, stride, b, columns, [](int) INLINE_LAMBDA { return T(1); });
    };
    auto signs = [=](int i) INLINE_LAMBDA { return bent_sign(i, b) * norm; };
    if (b == 1) return;
    if (whole == length) return blocks();
    if (!inverse) {
        blocks();
        mix(tail, stride, b, columns, signs);
        return;
    }
    mix(tail, stride, b, columns, [](int) INLINE_LAMBDA { return T(1); });
    for (int i = 0; i < b; ++i)
        for (int c = 0; c < columns; ++c) {
            vec<T>* v = (vec<T>*)(tail + i * stride) + c;
            *v *= signs(i);
        }
    blocks();
}

}  // namespace TEMPO_ISA
