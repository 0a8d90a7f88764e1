// The noise of the row at which each sample stands, or of the start.
//
//   noise    [n, e]  out: `scale` times standard normals, e the elements of a sample
//   row      [n]     the row of each sample; a sample outside the table keeps its old noise
//   draws    [rows]  the draw of each row of the table
//   samples  [n]     the index of each sample under the seed
//   seeds    [n]     in device memory, so that one captured graph serves every seed
//
// The work items are the n * ceil(e / 4) blocks; any launch of one dimension covers them.

#include "philox.cuh"

KERNEL difftool_noise(float* __restrict__ noise, const long long* __restrict__ row,
                      const unsigned* __restrict__ draws, const unsigned* __restrict__ samples,
                      const unsigned long long* __restrict__ seeds, unsigned stream,
                      float scale, int n, int e, int rows) {
    const int blocks = (e + 3) / 4;
    const long long items = (long long)n * blocks;
    for (long long item = first_index(); item < items; item += index_stride()) {
        const int sample = (int)(item / blocks), block = (int)(item % blocks);
        const long long at = row[sample];
        if (at < 0 || at >= rows) continue;
        float z[4];
        normals(seeds[sample], stream, draws[at], samples[sample], block, z);
        float* out = noise + (long long)sample * e;
        for (int lane = 0; lane < 4; ++lane) {
            const int element = 4 * block + lane;
            if (element < e) out[element] = scale * z[lane];
        }
    }
}
