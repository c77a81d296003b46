// What the checks need of a tensor: sums over either axis and norms in float64, in one pass that only reads.
#pragma once
#include "abi.h"
#include "plan.h"

namespace TEMPO_ISA {

// Some rows that are summed by themselves down the rows, and have probes of their own. Rows count from 0 here.
struct Group {
    const Survey& s;
    int64_t number, first, rows;

    Group(const Survey& s, int64_t g) : s(s), number(g), first(s.bounds[g]), rows(s.bounds[g + 1] - s.bounds[g]) {}
    template <class S> const S* a(int64_t row) const { return (const S*)s.a + s.starts[number] + row * s.stride; }
    const double* along(const Sums& of) const { return of.with + (of.common ? 0 : number * s.width * of.probes); }
    const double* down(const Sums& of) const { return of.with + (of.common ? 0 : first * of.probes); }
    double* out(const Sums& of, int64_t row) const { return of.out + (first + row) * of.probes; }
    double* norms(int64_t row) const { return s.norms + first + row; }
};

// Rows that are summed at once, so that each entry of a probe is read once for all of them: as many sums as
// there are registers for.
constexpr int ABREAST = TEMPO_BYTES == 64 ? 4 : 2;

// P probes from `first` on of R rows. fetch: rows beyond them that are on their way into the caches, or 0.
// The processor follows a row by itself, not from a row to the next.
template <class S, int P, int R>
INLINE void along_rows(const Group& g, const Sums& sums, int64_t row, int first, bool norms, int fetch) {
    constexpr int W = Lanes<double>::W;
    const Survey& s = g.s;
    const S* a = g.a<S>(row);
    const double* v = g.along(sums) + first * s.width;
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
        for (int64_t e = f; e < s.width; ++e) {
            double x = widen_one(a[r * s.stride + e]), y = sums.squared ? x * x : x;
            for (int k = 0; k < P; ++k) rest[k] += y * v[k * s.width + e];
            rest_square += x * x;
        }
        for (int k = 0; k < P; ++k) g.out(sums, row + r)[first + k] = total(sum[r][k]) + rest[k];
        if (norms) *g.norms(row + r) = std::sqrt(total(square[r]) + rest_square);
    }
}

// R rows, some probes at a time; norms once, also without any probe.
template <class S, int R> INLINE void along_probes(const Group& g, int64_t row, int fetch) {
    bool norms = g.s.norms;
    for (int64_t i = 0; i < g.s.along_count; ++i) {
        const Sums& sums = g.s.along[i];
        for (int k = 0; k < sums.probes || norms; norms = false, fetch = 0) {
            int left = sums.probes - k;
            if (left >= 4) along_rows<S, 4, R>(g, sums, row, k, norms, fetch), k += 4;
            else if (left == 3) along_rows<S, 3, R>(g, sums, row, k, norms, fetch), k += 3;
            else if (left == 2) along_rows<S, 2, R>(g, sums, row, k, norms, fetch), k += 2;
            else if (left == 1) along_rows<S, 1, R>(g, sums, row, k, norms, fetch), k += 1;
            else along_rows<S, 0, R>(g, sums, row, k, norms, fetch);
        }
    }
}

template <class S> static void along_some(const Group& g, int64_t lo, int64_t hi) {
    constexpr int R = ABREAST, AHEAD = R;
    for (; lo + R <= hi; lo += R) along_probes<S, R>(g, lo, lo + R + AHEAD <= g.rows ? AHEAD : 0);
    for (; lo < hi; ++lo) along_probes<S, 1>(g, lo, 0);
}

// Adds rows lo to hi, P columns of `with` from `first` on, into out (P', F) and squares of one thread.
template <class S, int P>
INLINE void down_rows(const Group& g, const Sums& sums, int64_t lo, int64_t hi, int first, int64_t fetch, double* out, double* squares) {
    constexpr int W = Lanes<double>::W;
    const Survey& s = g.s;
    const S* a = g.a<S>(0);
    const double* q = g.down(sums) + first;
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
template <class S> INLINE void down_some(const Group& g, int64_t lo, int64_t hi, double* mine, double* squares) {
    const Survey& s = g.s;
    // Where there are sums along the rows as well, they have fetched these and the next.
    int64_t fetch = s.along_count || hi + (hi - lo) > g.rows ? 0 : hi - lo;
    for (int64_t i = 0; i < s.down_count; mine += s.down[i++].probes * s.width) {
        const Sums& sums = s.down[i];
        for (int k = 0; k < sums.probes || squares; squares = nullptr, fetch = 0) {
            int left = sums.probes - k;
            if (left >= 2) down_rows<S, 2>(g, sums, lo, hi, k, fetch, mine, squares), k += 2;
            else if (left == 1) down_rows<S, 1>(g, sums, lo, hi, k, fetch, mine, squares), k += 1;
            else down_rows<S, 0>(g, sums, lo, hi, k, fetch, mine, squares);
        }
    }
}

// Both at once for R rows with P probes along them and Q down them, in one loop: what the checks ask most. Sums
// of one thread as in down_some.
template <class S, int P, int Q, int R>
INLINE void cross_rows(const Group& g, int64_t row, double* mine, double* squares, int fetch) {
    constexpr int W = Lanes<double>::W;
    const Survey& s = g.s;
    const S* a = g.a<S>(row);
    const double *v = g.along(*s.along), *q = g.down(*s.down) + row * Q;
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
        for (int64_t e = f; e < s.width; ++e) {
            double x = widen_one(a[r * s.stride + e]);
            for (int k = 0; k < P; ++k) rest[k] += x * v[k * s.width + e];
            for (int k = 0; k < Q; ++k) mine[k * s.width + e] += x * q[r * Q + k];
            rest_square += x * x;
            squares[e] += x * x;
        }
        for (int k = 0; k < P; ++k) g.out(*s.along, row + r)[k] = total(sum[r][k]) + rest[k];
        *g.norms(row + r) = std::sqrt(total(square[r]) + rest_square);
    }
}

template <class S, int P, int Q> static void cross_some(const Group& g, int64_t lo, int64_t hi, double* mine, double* squares) {
    constexpr int R = TEMPO_BYTES == 64 ? 8 : P ? 3 : 4;  // measured: more of them wait for registers, fewer for memory
    for (; lo + R <= hi; lo += R) cross_rows<S, P, Q, R>(g, lo, mine, squares, lo + 2 * R <= g.rows ? R : 0);
    for (; lo < hi; ++lo) cross_rows<S, P, Q, 1>(g, lo, mine, squares, 0);
}

// Rows lo to hi of all that is asked.
template <class S> static void survey_rows(const Group& g, int64_t lo, int64_t hi, double* mine, double* squares) {
    const Survey& s = g.s;
    if (s.along_count == 1 && s.down_count == 1 && !s.along->squared && !s.down->squared) {
        int p = s.along->probes, q = s.down->probes;
        if (p == 2 && q == 2) return cross_some<S, 2, 2>(g, lo, hi, mine, squares);
        if (p == 3 && q == 1) return cross_some<S, 3, 1>(g, lo, hi, mine, squares);
        if (p == 0 && q == 1) return cross_some<S, 0, 1>(g, lo, hi, mine, squares);
    }
    if (s.along_count) along_some<S>(g, lo, hi);
    if (mine) down_some<S>(g, lo, hi, mine, squares);
}

INLINE int64_t down_probes(const Survey& s) {
    int64_t probes = 0;
    for (int64_t i = 0; i < s.down_count; ++i) probes += s.down[i].probes;
    return probes;
}

// Adds what one thread has of a group, (all probes, F) and then squares, to the results of all.
INLINE void down_add(const Survey& s, int64_t group, const double* mine) {
    int64_t column = group * s.width;
    for (int64_t i = 0; i < s.down_count; mine += s.down[i++].probes * s.width) {
        const Sums& sums = s.down[i];
        for (int64_t f = 0; f < s.width; ++f)
            for (int k = 0; k < sums.probes; ++k) sums.out[(column + f) * sums.probes + k] += mine[k * s.width + f];
    }
    if (s.squares)
        for (int64_t f = 0; f < s.width; ++f) s.squares[column + f] += mine[f];
}

// Threads take pieces of rows of a group as they come: one of them may share its core with a transfer. BLOCK rows stay
// in the caches from the sums along them to those down them.
template <class S> static int survey_as(const Survey& s, int threads) {
    constexpr int64_t BYTES = 512 << 10, BLOCK = 16;
    int64_t piece = (BYTES / int64_t(sizeof(S) * (s.width + 1)) / BLOCK + 1) * BLOCK;
    int64_t columns = s.width * (down_probes(s) + 1), all = s.groups * s.width;
    auto pieces = [&](int64_t g) { return (s.bounds[g + 1] - s.bounds[g] + piece - 1) / piece; };
    int64_t total = 0;
    for (int64_t g = 0; g < s.groups; ++g) total += pieces(g);
    auto zero = [](double* out, int64_t count) { if (count) memset(out, 0, count * sizeof(double)); };
    for (int64_t i = 0; i < s.down_count; ++i) zero(s.down[i].out, all * s.down[i].probes);
    if (s.squares) zero(s.squares, all);
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        static thread_local Scratch scratch;
        double* mine = s.down_count ? (double*)scratch.get(columns * sizeof(double) + 64) : nullptr;
        failed |= s.down_count && !mine;
        double* squares = mine && s.squares ? mine + columns - s.width : nullptr;
        int64_t g = 0, before = 0, held = -1;  // the group of a piece; pieces before it; the group of `mine`
        auto hold = [&](int64_t next) {
            if (held >= 0) {
#pragma omp critical(tempo_survey)
                down_add(s, held, mine);
            }
            if (next >= 0) memset(mine, 0, columns * sizeof(double));
            held = next;
        };
#pragma omp for schedule(monotonic : dynamic, 1) nowait
        for (int64_t i = 0; i < total; ++i) {
            if (s.down_count && !mine) continue;
            while (i - before >= pieces(g)) before += pieces(g++);  // a thread's pieces ascend
            if (mine && g != held) hold(g);
            Group group(s, g);
            int64_t lo = (i - before) * piece, end = lo + piece < group.rows ? lo + piece : group.rows;
            for (; lo < end; lo += BLOCK) {
                int64_t hi = lo + BLOCK < end ? lo + BLOCK : end;
                survey_rows<S>(group, lo, hi, mine, squares);
            }
        }
        if (mine) hold(-1);
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
