// The C interface of the passes: plain structs, filled by tempo/kernels/native.py, which checks them.
//
// Axes: G groups, R rows, F features, P probes. All tensors are row-major with unit stride along features.
#pragma once
#include <cstdint>

#include "images.h"

extern "C" {

enum Type : int32_t { FLOAT32 = 0, FLOAT64 = 1, BFLOAT16 = 2 };

// One axis in one direction, position i between its two ends:
//     t[i]  = in_scale[i] x[in_index[i]];   `rounds` times H with a monomial between;   y[out_index[i]] = out_scale[i] t[i]
// Null index: i itself. Null scale: 1. Scales have the type that is computed in. An encoding and its
// inverse have the same form: the ends swap, monomials are inverted, and a tail window comes first.
struct Axis {
    int64_t length;
    const int32_t* in_index;
    const void* in_scale;
    const int32_t* middle_index;  // (rounds - 1, length): u[i] = middle_scale[i] t[middle_index[i]]
    const void* middle_scale;
    const int32_t* out_index;
    const void* out_scale;
    int32_t rounds;
    int32_t block;    // of H: a power of two, 2 to MAX_BLOCK, at most length
    int32_t inverse;  // the tail window is undone before the blocks
};

// y = E_rows (x - before) E_features^T + after, a row at a time in blocks.
struct Transform {
    const void* source;
    void* target;
    int64_t source_stride, target_stride;  // elements from row to row
    const int64_t* source_rows;  // row r of the axis is row source_rows[r] of the tensor; null: r
    const int64_t* target_rows;
    const Axis* rows;  // consecutive stretches, each with rounds 0 or 1
    int64_t stretches;
    const Axis* features;  // null: rows alone
    int64_t width;         // F
    const void* before;    // (F) or null, in the type that is computed in
    const void* after;
    int32_t source_type, target_type;
};

// Sums over one axis of a tensor with P vectors of the other; squared: of its squares. common: every group has the same
// P vectors, else each has its own.
struct Sums {
    const double* with;
    double* out;
    int32_t probes, squared, common;
};

// What the checks need of a tensor, in one pass over it. float64 whatever a is. Rows bounds[g] to bounds[g + 1] are
// those of group g, and the first of them is starts[g] elements from a.
//     along: out[r, p] = sum_f a[r, f] with[g, p, f],  with (G, P, F);      norms[r] = ||a[r]||
//     down:  out[g, f, p] = sum_r a[r, f] with[r, p],  with (all rows, P);  squares[g, f] = sum_r a[r, f]^2
// Common probes are (P, F) along and (rows of a group, P) down. Without probes `along` has norms alone, `down` squares
// alone; null: nothing of the kind.
struct Survey {
    const void* a;
    const int64_t *bounds, *starts;
    int64_t groups, width, stride;
    const Sums *along, *down;
    int64_t along_count, down_count;
    double *norms, *squares;
    int32_t type;
};

struct Passes {
    const char* name;
    int (*transform)(const Transform*, int64_t count, int threads);
    int (*survey)(const Survey*, int threads);
    ImagePasses images;
};

}  // extern "C"

// Grows with every change of this file: a library built for another one is not used (native.py).
constexpr int ABI = 4;

constexpr int MAX_BLOCK = 128;
