// Vectors of the width that this translation unit is compiled for, and what the tiles need of them.
// Everything lives in the namespace TEMPO_ISA: one copy per instruction set, never merged by the linker.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define TEMPO_BYTES 64
#elif defined(__AVX2__)
#define TEMPO_BYTES 32
#else
#define TEMPO_BYTES 16
#endif
#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))

namespace TEMPO_ISA {

template <class T> struct Lanes {
    static constexpr int W = TEMPO_BYTES / sizeof(T);
    typedef T vec __attribute__((vector_size(TEMPO_BYTES)));
    typedef T loose __attribute__((vector_size(TEMPO_BYTES), aligned(sizeof(T)), may_alias));
};
template <class T> using vec = typename Lanes<T>::vec;

template <class T> INLINE vec<T> load(const T* p) { return *(const typename Lanes<T>::loose*)p; }
template <class T> INLINE void store(T* p, vec<T> v) { *(typename Lanes<T>::loose*)p = v; }
template <class T> INLINE vec<T> splat(T s) { return vec<T>{} + s; }

// bfloat16 is the upper half of a float32, rounded to nearest, ties to even.
typedef uint32_t u32v __attribute__((vector_size(TEMPO_BYTES)));
typedef uint16_t u16v __attribute__((vector_size(TEMPO_BYTES / 2)));
typedef uint16_t u16loose __attribute__((vector_size(TEMPO_BYTES / 2), aligned(2), may_alias));
typedef float f32half __attribute__((vector_size(TEMPO_BYTES / 2), aligned(4), may_alias));
typedef uint16_t u16half __attribute__((vector_size(TEMPO_BYTES / 4), aligned(2), may_alias));
typedef uint32_t u32half __attribute__((vector_size(TEMPO_BYTES / 2)));

INLINE vec<float> load(const uint16_t* p) {
    u32v wide = __builtin_convertvector(*(const u16loose*)p, u32v) << 16;
    return (vec<float>)wide;
}
INLINE void store(uint16_t* p, vec<float> v) {
    u32v bits = (u32v)v;
    u32v rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    u32v nan = (u32v)(v != v);  // all ones where v is NaN: rounding could turn it into an infinity
    *(u16loose*)p = __builtin_convertvector((rounded & ~nan) | (nan & 0x7fc0u), u16v);
}

// float64 vectors from half as many narrow entries, or from float64.
INLINE vec<double> widen(const float* p) { return __builtin_convertvector(*(const f32half*)p, vec<double>); }
INLINE vec<double> widen(const double* p) { return load(p); }
INLINE vec<double> widen(const uint16_t* p) {
    u32half wide = __builtin_convertvector(*(const u16half*)p, u32half) << 16;
    typedef float floats __attribute__((vector_size(TEMPO_BYTES / 2)));
    return __builtin_convertvector((floats)wide, vec<double>);
}
INLINE double widen_one(float x) { return x; }
INLINE double widen_one(double x) { return x; }
INLINE double widen_one(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

INLINE double total(vec<double> v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_pd((__m512d)v);
#elif defined(__AVX2__)
    __m128d half = _mm256_castpd256_pd128((__m256d)v) + _mm256_extractf128_pd((__m256d)v, 1);
    return half[0] + half[1];
#else
    return v[0] + v[1];
#endif
}

// Stores past the caches: the line is written whole, so it need not be read first. p: aligned.
template <class T> INLINE void stream(T* p, vec<T> v) {
#if defined(__AVX512F__)
    _mm512_stream_si512((__m512i*)p, (__m512i)v);
#elif defined(__AVX2__)
    _mm256_stream_si256((__m256i*)p, (__m256i)v);
#elif defined(__SSE2__)
    _mm_stream_si128((__m128i*)p, (__m128i)v);
#else
    store(p, v);
#endif
}
INLINE void fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

}  // namespace TEMPO_ISA
