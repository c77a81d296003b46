// What is worked out once per call: tiles, and the feature axis as the tiles use it.
#pragma once
#include <cmath>
#include <cstdlib>

#include "abi.h"
#include "simd.h"

namespace TEMPO_ISA {

constexpr int TILE = 64;                                              // rows of a tile, or one block if that is more
constexpr int MOST = 2 * (TILE > MAX_BLOCK ? TILE : MAX_BLOCK);       // rows of the largest tile

struct Tile {
    int32_t transform, rows;
    int64_t stretch, base, first;  // base: of the stretch; first: position within it
};

INLINE int64_t whole(const Axis& a) { return a.rounds ? a.length - a.length % a.block : 0; }
template <class T> INLINE T norm(const Axis& a) { return a.rounds ? T(1 / std::sqrt(double(a.block))) : T(1); }

// Position i of an axis and the factor that goes with it, b^-1/2 of the blocks included: it is applied
// where the entries enter, or, for an inverse, where they leave.
template <class T> INLINE T in_factor(const Axis& a, int64_t i) {
    T s = a.in_scale ? ((const T*)a.in_scale)[i] : T(1);
    return !a.inverse && i < whole(a) ? s * norm<T>(a) : s;
}
template <class T> INLINE T out_factor(const Axis& a, int64_t i) {
    T s = a.out_scale ? ((const T*)a.out_scale)[i] : T(1);
    return a.inverse && i < whole(a) ? s * norm<T>(a) : s;
}

// Feature f enters the tile at line `in_line[f]` and leaves it from line `out_line[f]`.
template <class T> struct Features {
    int32_t *in_line, *out_line;
    T *in, *middle, *out;

    static int64_t bytes(const Axis& a) {
        return a.length * (2 * sizeof(int32_t) + (a.rounds > 1 ? a.rounds + 1 : 2) * sizeof(T)) + 64;
    }
    void fill(const Axis& a, char* memory) {
        int64_t n = a.length;
        in = (T*)memory;
        out = in + n;
        middle = out + n;
        in_line = (int32_t*)(middle + (a.rounds > 1 ? (a.rounds - 1) * n : 0));
        out_line = in_line + n;
        for (int64_t i = 0; i < n; ++i) {
            int64_t f = a.in_index ? a.in_index[i] : i, g = a.out_index ? a.out_index[i] : i;
            in_line[f] = int32_t(i);
            in[f] = in_factor<T>(a, i);
            out_line[g] = int32_t(i);
            out[g] = out_factor<T>(a, i);
        }
        for (int64_t r = 0; r + 1 < a.rounds; ++r)
            for (int64_t i = 0; i < n; ++i) {
                int64_t from = a.inverse ? a.middle_index[r * n + i] : i;
                T factor = from < whole(a) ? norm<T>(a) : T(1);
                middle[r * n + i] = ((const T*)a.middle_scale)[r * n + i] * factor;
            }
    }
};

INLINE int64_t tiles_of(const Axis& a) {
    int64_t tile = a.rounds && a.block > TILE ? a.block : TILE;
    return a.length == 0 ? 0 : a.length < tile ? 1 : a.length / tile;
}

// Tiles of one stretch: whole blocks each, the last one with what remains.
INLINE Tile* add_tiles(Tile* out, const Axis& a, int32_t transform, int64_t stretch, int64_t base) {
    int64_t tile = a.rounds && a.block > TILE ? a.block : TILE, count = tiles_of(a);
    for (int64_t t = 0; t < count; ++t) {
        int64_t last = t + 1 == count ? a.length : (t + 1) * tile;
        *out++ = Tile{transform, int32_t(last - t * tile), stretch, base, t * tile};
    }
    return out;
}

// Overwrites; the compiler must not leave it out as useless.
INLINE void erase(char* memory, int64_t bytes) {
    memset(memory, 0, bytes);
    asm volatile("" : : "r"(memory) : "memory");
}

// Memory of one thread, kept from call to call unless it is large: tiles of very wide rows are rare.
constexpr int64_t KEPT = 16 << 20;

struct Scratch {
    char* memory = nullptr;
    int64_t size = 0;
    char* get(int64_t bytes) {
        if (bytes > size) {
            free(memory);
            size = (bytes + (1 << 16)) & ~int64_t(0xffff);
            memory = (char*)aligned_alloc(4096, size);
            if (!memory) size = 0;
        }
        return memory;
    }
    void shrink() {
        if (size <= KEPT) return;
        free(memory);
        memory = nullptr;
        size = 0;
    }
    ~Scratch() { free(memory); }
};

}  // namespace TEMPO_ISA
