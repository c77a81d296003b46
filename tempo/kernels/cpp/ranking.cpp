// The order of random words: how permutations are drawn from a keystream.
//
// Words are uniform, so their leading bits are nearly the answer: one counting sort by as many bits as
// there are buckets for, then insertion within buckets of a few.
#include <cstdint>
#include <cstdlib>
#include <cstring>

extern "C" __attribute__((visibility("default"))) int tempo_ranking(const int64_t* words, int32_t* index, int64_t count) {
    if (count < 2) {
        for (int64_t i = 0; i < count; ++i) index[i] = 0;
        return 0;
    }
    int bits = 1;
    while ((int64_t(1) << bits) < count) ++bits;
    int64_t buckets = int64_t(1) << bits;
    int32_t* start = (int32_t*)calloc(buckets + 1, sizeof(int32_t));
    if (!start) return 1;
    // Order of signed words, by unsigned leading bits.
    auto bucket = [=](int64_t w) { return (uint64_t(w) ^ (uint64_t(1) << 63)) >> (64 - bits); };
    for (int64_t i = 0; i < count; ++i) ++start[bucket(words[i]) + 1];
    for (int64_t b = 0; b < buckets; ++b) start[b + 1] += start[b];
    for (int64_t i = 0; i < count; ++i) index[start[bucket(words[i])]++] = int32_t(i);
    for (int64_t i = 1; i < count; ++i) {
        int32_t moved = index[i];
        int64_t word = words[moved], at = i;
        for (; at > 0 && words[index[at - 1]] > word; --at) index[at] = index[at - 1];
        index[at] = moved;
    }
    // The counts tell where words lie: erased, and the compiler must not leave that out as useless.
    memset(start, 0, (buckets + 1) * sizeof(int32_t));
    asm volatile("" : : "r"(start) : "memory");
    free(start);
    return 0;
}
