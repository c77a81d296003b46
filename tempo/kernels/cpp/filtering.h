// The matrices of Winograd's minimal filtering, F(2,3) and F(4,3), along one axis, unrolled.
//
// Lavin and Gray, arXiv 1509.09308, section 4; tempo/kernels/tiles.py holds the same numbers.
#pragma once
#include <utility>

#include "simd.h"

namespace TEMPO_ISA {

// at[p][a]: point p from pixel a of a tile. Inputs: B^T; gradients of outputs: A, the transpose of A^T.
struct Input2 {
    static constexpr int m = 2, points = 4, side = 4;
    static constexpr int at[points][side] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
};
struct Output2 {
    static constexpr int m = 2, points = 4, side = 2;
    static constexpr int at[points][side] = {{1, 0}, {1, 1}, {1, -1}, {0, -1}};
};
struct Input4 {
    static constexpr int m = 4, points = 6, side = 6;
    static constexpr int at[points][side] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                             {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
};
struct Output4 {
    static constexpr int m = 4, points = 6, side = 4;
    static constexpr int at[points][side] = {{1, 0, 0, 0}, {1, 1, 1, 1}, {1, -1, 1, -1}, {1, 2, 4, 8}, {1, -2, 4, -8}, {0, 0, 0, 1}};
};

template <class M, bool BACK> constexpr int entry(int to, int from) { return BACK ? M::at[from][to] : M::at[to][from]; }
template <class M, bool BACK> constexpr bool before(int to, int from) {
    for (int i = 0; i < from; ++i)
        if (entry<M, BACK>(to, i)) return true;
    return false;
}

// Entry TO of the product with x, of its terms 0 to FROM. Zeros cost nothing.
template <class M, bool BACK, int TO, int FROM, class T> INLINE vec<T> sum(const vec<T>* x) {
    constexpr int k = entry<M, BACK>(TO, FROM);
    if constexpr (!before<M, BACK>(TO, FROM)) {
        return k == 1 ? x[FROM] : k == -1 ? -x[FROM] : x[FROM] * T(k);
    } else {
        vec<T> rest = sum<M, BACK, TO, FROM - 1, T>(x);
        return k == 0 ? rest : k == 1 ? rest + x[FROM] : k == -1 ? rest - x[FROM] : rest + x[FROM] * T(k);
    }
}
template <class M, bool BACK, class T, int... TO> INLINE void apply(const vec<T>* x, vec<T>* y, std::integer_sequence<int, TO...>) {
    ((y[TO] = sum<M, BACK, TO, (BACK ? M::points : M::side) - 1, T>(x)), ...);
}

// points = M pixels
template <class M, class T> INLINE void forward(const vec<T>* x, vec<T>* y) {
    apply<M, false, T>(x, y, std::make_integer_sequence<int, M::points>());
}
// pixels = M^T points
template <class M, class T> INLINE void backward(const vec<T>* x, vec<T>* y) {
    apply<M, true, T>(x, y, std::make_integer_sequence<int, M::side>());
}

}  // namespace TEMPO_ISA
