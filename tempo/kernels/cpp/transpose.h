// W vectors of W entries, transposed in registers: entry e of vector i becomes entry i of vector e.
// Pairs within 128-bit lanes first, whole lanes after.
#pragma once
#include "simd.h"

namespace TEMPO_ISA {

#if defined(__AVX512F__)
INLINE void transpose(vec<float>* x) {
    __m512 r[16], t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps((__m512)x[i], (__m512)x[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps((__m512)x[i], (__m512)x[i + 1]);
    }
    auto low = [](__m512 a, __m512 b) {
        return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    auto high = [](__m512 a, __m512 b) {
        return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    };
    for (int i = 0; i < 16; i += 4) {
        r[i] = low(t[i], t[i + 2]);
        r[i + 1] = high(t[i], t[i + 2]);
        r[i + 2] = low(t[i + 1], t[i + 3]);
        r[i + 3] = high(t[i + 1], t[i + 3]);
    }
    for (int c = 0; c < 4; ++c) {
        __m512 even_a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), even_b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        __m512 odd_a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd), odd_b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        x[c] = (vec<float>)_mm512_shuffle_f32x4(even_a, even_b, 0x88);
        x[8 + c] = (vec<float>)_mm512_shuffle_f32x4(even_a, even_b, 0xdd);
        x[4 + c] = (vec<float>)_mm512_shuffle_f32x4(odd_a, odd_b, 0x88);
        x[12 + c] = (vec<float>)_mm512_shuffle_f32x4(odd_a, odd_b, 0xdd);
    }
}
INLINE void transpose(vec<double>* x) {
    __m512d t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_pd((__m512d)x[i], (__m512d)x[i + 1]);
        t[i + 1] = _mm512_unpackhi_pd((__m512d)x[i], (__m512d)x[i + 1]);
    }
    for (int c = 0; c < 2; ++c) {
        __m512d even_a = _mm512_shuffle_f64x2(t[c], t[2 + c], 0x88), even_b = _mm512_shuffle_f64x2(t[4 + c], t[6 + c], 0x88);
        __m512d odd_a = _mm512_shuffle_f64x2(t[c], t[2 + c], 0xdd), odd_b = _mm512_shuffle_f64x2(t[4 + c], t[6 + c], 0xdd);
        x[c] = (vec<double>)_mm512_shuffle_f64x2(even_a, even_b, 0x88);
        x[4 + c] = (vec<double>)_mm512_shuffle_f64x2(even_a, even_b, 0xdd);
        x[2 + c] = (vec<double>)_mm512_shuffle_f64x2(odd_a, odd_b, 0x88);
        x[6 + c] = (vec<double>)_mm512_shuffle_f64x2(odd_a, odd_b, 0xdd);
    }
}
#elif defined(__AVX2__)
INLINE void transpose(vec<float>* x) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps((__m256)x[i], (__m256)x[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps((__m256)x[i], (__m256)x[i + 1]);
    }
    auto low = [](__m256 a, __m256 b) {
        return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
    };
    auto high = [](__m256 a, __m256 b) {
        return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
    };
    for (int i = 0; i < 8; i += 4) {
        r[i] = low(t[i], t[i + 2]);
        r[i + 1] = high(t[i], t[i + 2]);
        r[i + 2] = low(t[i + 1], t[i + 3]);
        r[i + 3] = high(t[i + 1], t[i + 3]);
    }
    for (int c = 0; c < 4; ++c) {
        x[c] = (vec<float>)_mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
        x[4 + c] = (vec<float>)_mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
    }
}
INLINE void transpose(vec<double>* x) {
    __m256d t[4];
    for (int i = 0; i < 4; i += 2) {
        t[i] = _mm256_unpacklo_pd((__m256d)x[i], (__m256d)x[i + 1]);
        t[i + 1] = _mm256_unpackhi_pd((__m256d)x[i], (__m256d)x[i + 1]);
    }
    for (int c = 0; c < 2; ++c) {
        x[c] = (vec<double>)_mm256_permute2f128_pd(t[c], t[2 + c], 0x20);
        x[2 + c] = (vec<double>)_mm256_permute2f128_pd(t[c], t[2 + c], 0x31);
    }
}
#else
template <class V> INLINE void transpose(V* x) {
    constexpr int W = TEMPO_BYTES / sizeof(x[0][0]);
    for (int i = 0; i < W; ++i)
        for (int e = 0; e < i; ++e) {
            auto swap = x[i][e];
            x[i][e] = x[e][i];
            x[e][i] = swap;
        }
}
#endif

}  // namespace TEMPO_ISA
