// What the checks need of a tensor: projections and norms in float64, in one pass that only reads.
#pragma once
#include "abi.h"
#include "plan.h"

namespace TEMPO_ISA {

// out (rows, P) of `R` rows at once, so that each entry of v is read once for all of them.
template <class S, int P, int R>
INLINE void project_rows(const Projection& p, int64_t row, int first, bool norms) {
    constexpr int W = Lanes<double>::W;
    const S* a = (const S*)p.a + row * p.stride;
    const double* v = p.v + first * p.width;
    vec<double> sum[R][P] = {}, square[R] = {};
    int64_t f = 0;
    for (; f + W <= p.width; f += W) {
        vec<double> probe[P];
        for (int k = 0; k < P; ++k) probe[k] = load(v + k * p.width + f);
        for (int r = 0; r < R; ++r) {
            vec<double> x = widen(a + r * p.stride + f), y = p.squared ? x * x : x;
            for (int k = 0; k < P; ++k) sum[r][k] += y * probe[k];
            square[r] += x * x;
        }
    }
    for (int r = 0; r < R; ++r) {
        double rest[P] = {}, rest_square = 0;
        for (int64_t g = f; g < p.width; ++g) {
            double x = widen_one(a[r * p.stride + g]), y = p.squared ? x * x : x;
            for (int k = 0; k < P; ++k) rest[k] += y * v[k * p.width + g];
            rest_square += x * x;
        }
        for (int k = 0; k < P; ++k) p.out[(row + r) * p.probes + first + k] = total(sum[r][k]) + rest[k];
        if (norms) p.norms[row + r] = std::sqrt(total(square[r]) + rest_square);
    }
}

// Rows lo to hi, some probes at a time; norms once, also without any probe.
template <class S, int R> INLINE void project_probes(const Projection& p, int64_t row) {
    bool norms = p.norms;
    for (int k = 0; k < p.probes || norms; norms = false) {
        int left = p.probes - k;
        if (left >= 4) project_rows<S, 4, R>(p, row, k, norms), k += 4;
        else if (left >= 2) project_rows<S, 2, R>(p, row, k, norms), k += 2;
        else if (left == 1) project_rows<S, 1, R>(p, row, k, norms), k += 1;
        else project_rows<S, 0, R>(p, row, k, norms);
    }
}

template <class S> static void project_some(const Projection& p, int64_t lo, int64_t hi) {
    constexpr int R = TEMPO_BYTES == 64 ? 4 : 2;  // as many sums as there are registers for
    for (; lo + R <= hi; lo += R) project_probes<S, R>(p, lo);
    for (; lo < hi; ++lo) project_probes<S, 1>(p, lo);
}

template <class S> static int project_as(const Projection& p, int threads) {
    constexpr int64_t PIECE = 64;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < (p.rows + PIECE - 1) / PIECE; ++i)
        project_some<S>(p, i * PIECE, (i + 1) * PIECE < p.rows ? (i + 1) * PIECE : p.rows);
    return 0;
}

static int project(const Projection* p, int threads) {
    switch (p->type) {
        case FLOAT32: return project_as<float>(*p, threads);
        case FLOAT64: return project_as<double>(*p, threads);
        default: return project_as<uint16_t>(*p, threads);
    }
}

// Adds rows lo to hi, P columns of q from `first` on, into out (F, P') and squares of one thread.
template <class S, int P>
INLINE void contract_rows(const Contraction& c, int64_t lo, int64_t hi, int first, double* out, double* squares) {
    constexpr int W = Lanes<double>::W;
    const S* a = (const S*)c.a;
    int64_t f = 0;
    for (; f + W <= c.width; f += W) {
        vec<double> sum[P], square{};
        for (int k = 0; k < P; ++k) sum[k] = load(out + (first + k) * c.width + f);
        for (int64_t r = lo; r < hi; ++r) {
            vec<double> x = widen(a + r * c.stride + f), y = c.squared ? x * x : x;
            for (int k = 0; k < P; ++k) sum[k] += y * c.q[r * c.probes + first + k];
            square += x * x;
        }
        for (int k = 0; k < P; ++k) store(out + (first + k) * c.width + f, sum[k]);
        if (squares) store(squares + f, load(squares + f) + square);
    }
    for (; f < c.width; ++f)
        for (int64_t r = lo; r < hi; ++r) {
            double x = widen_one(a[r * c.stride + f]), y = c.squared ? x * x : x;
            for (int k = 0; k < P; ++k) out[(first + k) * c.width + f] += y * c.q[r * c.probes + first + k];
            if (squares) squares[f] += x * x;
        }
}

template <class S> static int contract_as(const Contraction& c, int threads) {
    constexpr int64_t PIECE = 16;
    int failed = 0;
    memset(c.out, 0, c.width * c.probes * sizeof(double));
    memset(c.squares, 0, c.width * sizeof(double));
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        static thread_local Scratch mine;
        double* sums = (double*)mine.get(c.width * (c.probes + 1) * sizeof(double) + 64);
        failed |= !sums;
        if (sums) memset(sums, 0, c.width * (c.probes + 1) * sizeof(double));
        double* squares = sums + c.width * c.probes;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < (c.rows + PIECE - 1) / PIECE; ++i) {
            if (!sums) continue;
            int64_t lo = i * PIECE, hi = lo + PIECE < c.rows ? lo + PIECE : c.rows;
            int k = 0;
            double* once = squares;
            do {
                if (c.probes - k >= 2) contract_rows<S, 2>(c, lo, hi, k, sums, once), k += 2;
                else if (c.probes - k == 1) contract_rows<S, 1>(c, lo, hi, k, sums, once), k += 1;
                else contract_rows<S, 0>(c, lo, hi, k, sums, once);
                once = nullptr;
            } while (k < c.probes);
        }
#pragma omp critical(tempo_contract)
        if (sums)
            for (int64_t f = 0; f < c.width; ++f) {
                for (int k = 0; k < c.probes; ++k) c.out[f * c.probes + k] += sums[k * c.width + f];
                c.squares[f] += squares[f];
            }
        mine.shrink();
    }
    return failed;
}

static int contract(const Contraction* c, int threads) {
    switch (c->type) {
        case FLOAT32: return contract_as<float>(*c, threads);
        case FLOAT64: return contract_as<double>(*c, threads);
        default: return contract_as<uint16_t>(*c, threads);
    }
}

}  // namespace TEMPO_ISA
