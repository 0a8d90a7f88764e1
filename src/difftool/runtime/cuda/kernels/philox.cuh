// Counter-based noise, word for word that of difftool/diffusion/noise.py.
#pragma once

#include "portable.cuh"

struct Words {
    unsigned w[4];
};

// Philox4x32-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
DEVICE Words philox(Words counter, unsigned key0, unsigned key1) {
    Words c = counter;
    for (int round = 0; round < 10; ++round) {
        const unsigned long long p0 = 0xD2511F53ull * c.w[0];
        const unsigned long long p1 = 0xCD9E8D57ull * c.w[2];
        c = {{(unsigned)(p1 >> 32) ^ c.w[1] ^ key0, (unsigned)p1,
              (unsigned)(p0 >> 32) ^ c.w[3] ^ key1, (unsigned)p0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// (word + 1/2) / 2^32 in (0, 1]. The product is exact: a fused multiply-add would change nothing.
DEVICE float unit(unsigned word) { return (float)word * 0x1p-32f + 0x1p-33f; }

// Box-Muller: two words to two independent standard normals.
DEVICE void box_muller(unsigned first, unsigned second, float* z) {
    const float radius = sqrtf(-2.0f * logf(unit(first)));
    const float angle = 6.28318530717958648f * unit(second);
    z[0] = radius * cosf(angle);
    z[1] = radius * sinf(angle);
}

// The four normals of a block of four consecutive elements of a sample.
DEVICE void normals(unsigned long long seed, unsigned stream, unsigned draw, unsigned sample,
                    unsigned block, float z[4]) {
    const Words drawn =
        philox({{block, sample, stream, draw}}, (unsigned)seed, (unsigned)(seed >> 32));
    box_muller(drawn.w[0], drawn.w[1], z);
    box_muller(drawn.w[2], drawn.w[3], z + 2);
}
