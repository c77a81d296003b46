// What the checks need of a tensor: sums over either axis and norms in float64, in one pass that only reads.
#pragma once
#include "abi.h"
#include "plan.h"

namespace TEMPO_ISA {

// Rows that are summed at once, so that each entry of a probe is read once for all of them: as many sums as
// there are registers for.
constexpr int ABREAST = TEMPO_BYTES == 64 ? 4 : 2;

// P probes from `first` on of R rows. fetch: rows beyond them that are on their way into the caches, or 0.
// The processor follows a row by itself, not from a row to the next.
template <class S, int P, int R>
INLINE void along_rows(const Survey& s, const Sums& sums, int64_t row, int first, bool norms, int fetch) {
    constexpr int W = Lanes<double>::W;
    const S* a = (const S*)s.a + row * s.stride;
    const double* v = sums.with + first * s.width;
    vec<double> sum[R][P] = {}, square[R] = {};
    int64_t f = 0;
    for (; f + W <= s.width; f += W) {
        vec<double> probe[P];
        for (int k = 0; k < P; ++k) probe[k] = load(v + k * s.width + f);
        for (int r = 0; r < R; ++r) {
            vec<double> x = widen(a + r * s.stride + f), y = sums.squared ? x * x : x;
            if (fetch) __builtin_prefetch(a + (r + fetch) * s.stride + f);
            for (int k = 0; k < P; ++k) sum[r][k] += y * probe[k];
            square[r] += x * x;
        }
    }
    for (int r = 0; r < R; ++r) {
        double rest[P] = {}, rest_square = 0;
        for (int64_t g = f; g < s.width; ++g) {
            double x = widen_one(a[r * s.stride + g]), y = sums.squared ? x * x : x;
            for (int k = 0; k < P; ++k) rest[k] += y * v[k * s.width + g];
            rest_square += x * x;
        }
        for (int k = 0; k < P; ++k) sums.out[(row + r) * sums.probes + first + k] = total(sum[r][k]) + rest[k];
        if (norms) s.norms[row + r] = std::sqrt(total(square[r]) + rest_square);
    }
}

// R rows, some probes at a time; norms once, also without any probe.
template <class S, int R> INLINE void along_probes(const Survey& s, int64_t row, int fetch) {
    bool norms = s.norms;
    for (int64_t i = 0; i < s.along_count; ++i) {
        const Sums& sums = s.along[i];
        for (int k = 0; k < sums.probes || norms; norms = false, fetch = 0) {
            int left = sums.probes - k;
            if (left >= 4) along_rows<S, 4, R>(s, sums, row, k, norms, fetch), k += 4;
            else if (left == 3) along_rows<S, 3, R>(s, sums, row, k, norms, fetch), k += 3;
            else if (left == 2) along_rows<S, 2, R>(s, sums, row, k, norms, fetch), k += 2;
            else if (left == 1) along_rows<S, 1, R>(s, sums, row, k, norms, fetch), k += 1;
            else along_rows<S, 0, R>(s, sums, row, k, norms, fetch);
        }
    }
}

template <class S> static void along_some(const Survey& s, int64_t lo, int64_t hi) {
    constexpr int R = ABREAST, AHEAD = R;
    for (; lo + R <= hi; lo += R) along_probes<S, R>(s, lo, lo + R + AHEAD <= s.rows ? AHEAD : 0);
    for (; lo < hi; ++lo) along_probes<S, 1>(s, lo, 0);
}

// Adds rows lo to hi, P columns of `with` from `first` on, into out (P', F) and squares of one thread.
template <class S, int P>
INLINE void down_rows(const Survey& s, const Sums& sums, int64_t lo, int64_t hi, int first, int64_t fetch, double* out, double* squares) {
    constexpr int W = Lanes<double>::W;
    const S* a = (const S*)s.a;
    const double* q = sums.with + first;
    out += first * s.width;
    int64_t f = 0;
    for (; f + W <= s.width; f += W) {
        vec<double> sum[P], square{};
        for (int k = 0; k < P; ++k) sum[k] = load(out + k * s.width + f);
        for (int64_t r = lo; r < hi; ++r) {
            vec<double> x = widen(a + r * s.stride + f), y = sums.squared ? x * x : x;
            if (fetch) __builtin_prefetch(a + (r + fetch) * s.stride + f, 0, 2);
            for (int k = 0; k < P; ++k) sum[k] += y * q[r * sums.probes + k];
            square += x * x;
        }
        for (int k = 0; k < P; ++k) store(out + k * s.width + f, sum[k]);
        if (squares) store(squares + f, load(squares + f) + square);
    }
    for (; f < s.width; ++f)
        for (int64_t r = lo; r < hi; ++r) {
            double x = widen_one(a[r * s.stride + f]), y = sums.squared ? x * x : x;
            for (int k = 0; k < P; ++k) out[k * s.width + f] += y * q[r * sums.probes + k];
            if (squares) squares[f] += x * x;
        }
}

// mine: (all probes, F) of each of s.down in turn, then squares (F).
template <class S> INLINE void down_some(const Survey& s, int64_t lo, int64_t hi, double* mine, double* squares) {
    // Where there are sums along the rows as well, they have fetched these and the next.
    int64_t fetch = s.along_count || hi + (hi - lo) > s.rows ? 0 : hi - lo;
    for (int64_t i = 0; i < s.down_count; mine += s.down[i++].probes * s.width) {
        const Sums& sums = s.down[i];
        for (int k = 0; k < sums.probes || squares; squares = nullptr, fetch = 0) {
            int left = sums.probes - k;
            if (left >= 2) down_rows<S, 2>(s, sums, lo, hi, k, fetch, mine, squares), k += 2;
            else if (left == 1) down_rows<S, 1>(s, sums, lo, hi, k, fetch, mine, squares), k += 1;
            else down_rows<S, 0>(s, sums, lo, hi, k, fetch, mine, squares);
        }
    }
}

// Both at once for R rows with P probes along them and Q down them, in one loop: what the checks ask most. Sums
// of one thread as in down_some.
template <class S, int P, int Q, int R>
INLINE void cross_rows(const Survey& s, int64_t row, double* mine, double* squares, int fetch) {
    constexpr int W = Lanes<double>::W;
    const S* a = (const S*)s.a + row * s.stride;
    const double *v = s.along->with, *q = s.down->with + row * Q;
    vec<double> sum[R][P] = {}, square[R] = {};
    int64_t f = 0;
    for (; f + W <= s.width; f += W) {
        vec<double> probe[P], down[Q], column = load(squares + f);
        for (int k = 0; k < P; ++k) probe[k] = load(v + k * s.width + f);
        for (int k = 0; k < Q; ++k) down[k] = load(mine + k * s.width + f);
        for (int r = 0; r < R; ++r) {
            vec<double> x = widen(a + r * s.stride + f);
            if (fetch) __builtin_prefetch(a + (r + fetch) * s.stride + f);
            for (int k = 0; k < P; ++k) sum[r][k] += x * probe[k];
            for (int k = 0; k < Q; ++k) down[k] += x * q[r * Q + k];
            square[r] += x * x;
            column += x * x;
        }
        for (int k = 0; k < Q; ++k) store(mine + k * s.width + f, down[k]);
        store(squares + f, column);
    }
    for (int r = 0; r < R; ++r) {
        double rest[P] = {}, rest_square = 0;
        for (int64_t g = f; g < s.width; ++g) {
            double x = widen_one(a[r * s.stride + g]);
            for (int k = 0; k < P; ++k) rest[k] += x * v[k * s.width + g];
            for (int k = 0; k < Q; ++k) mine[k * s.width + g] += x * q[r * Q + k];
            rest_square += x * x;
            squares[g] += x * x;
        }
        for (int k = 0; k < P; ++k) s.along->out[(row + r) * P + k] = total(sum[r][k]) + rest[k];
        s.norms[row + r] = std::sqrt(total(square[r]) + rest_square);
    }
}

template <class S, int P, int Q> static void cross_some(const Survey& s, int64_t lo, int64_t hi, double* mine, double* squares) {
    constexpr int R = TEMPO_BYTES == 64 ? 8 : P ? 3 : 4;  // measured: more of them wait for registers, fewer for memory
    for (; lo + R <= hi; lo += R) cross_rows<S, P, Q, R>(s, lo, mine, squares, lo + 2 * R <= s.rows ? R : 0);
    for (; lo < hi; ++lo) cross_rows<S, P, Q, 1>(s, lo, mine, squares, 0);
}

// Rows lo to hi of all that is asked.
template <class S> static void survey_rows(const Survey& s, int64_t lo, int64_t hi, double* mine, double* squares) {
    if (s.along_count == 1 && s.down_count == 1 && !s.along->squared && !s.down->squared) {
        int p = s.along->probes, q = s.down->probes;
        if (p == 2 && q == 2) return cross_some<S, 2, 2>(s, lo, hi, mine, squares);
        if (p == 3 && q == 1) return cross_some<S, 3, 1>(s, lo, hi, mine, squares);
        if (p == 0 && q == 1) return cross_some<S, 0, 1>(s, lo, hi, mine, squares);
    }
    if (s.along_count) along_some<S>(s, lo, hi);
    if (mine) down_some<S>(s, lo, hi, mine, squares);
}

INLINE int64_t down_probes(const Survey& s) {
    int64_t probes = 0;
    for (int64_t i = 0; i < s.down_count; ++i) probes += s.down[i].probes;
    return probes;
}

// Adds what one thread has to the results of all.
INLINE void down_add(const Survey& s, const double* mine) {
    for (int64_t i = 0; i < s.down_count; mine += s.down[i++].probes * s.width) {
        const Sums& sums = s.down[i];
        for (int64_t f = 0; f < s.width; ++f)
            for (int k = 0; k < sums.probes; ++k) sums.out[f * sums.probes + k] += mine[k * s.width + f];
    }
    if (s.squares)
        for (int64_t f = 0; f < s.width; ++f) s.squares[f] += mine[f];
}

// Threads take pieces of rows as they come: one of them may share its core with a transfer. BLOCK rows stay in the
// caches from the sums along them to those down them.
template <class S> static int survey_as(const Survey& s, int threads) {
    constexpr int64_t BYTES = 512 << 10, BLOCK = 16;
    int64_t piece = (BYTES / int64_t(sizeof(S) * (s.width + 1)) / BLOCK + 1) * BLOCK;
    int64_t columns = s.width * (down_probes(s) + 1);
    for (int64_t i = 0; i < s.down_count; ++i) memset(s.down[i].out, 0, s.width * s.down[i].probes * sizeof(double));
    if (s.squares) memset(s.squares, 0, s.width * sizeof(double));
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        static thread_local Scratch scratch;
        double* mine = s.down_count ? (double*)scratch.get(columns * sizeof(double) + 64) : nullptr;
        failed |= s.down_count && !mine;
        if (mine) memset(mine, 0, columns * sizeof(double));
        double* squares = mine && s.squares ? mine + columns - s.width : nullptr;
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < (s.rows + piece - 1) / piece; ++i) {
            if (s.down_count && !mine) continue;
            int64_t end = (i + 1) * piece < s.rows ? (i + 1) * piece : s.rows;
            for (int64_t lo = i * piece; lo < end; lo += BLOCK) {
                int64_t hi = lo + BLOCK < end ? lo + BLOCK : end;
                survey_rows<S>(s, lo, hi, mine, squares);
            }
        }
#pragma omp critical(tempo_survey)
        if (mine) down_add(s, mine);
        scratch.shrink();
    }
    return failed;
}

static int survey(const Survey* s, int threads) {
    switch (s->type) {
        case FLOAT32: return survey_as<float>(*s, threads);
        case FLOAT64: return survey_as<double>(*s, threads);
        default: return survey_as<uint16_t>(*s, threads);
    }
}

}  // namespace TEMPO_ISA
