// Samples stand in slots, and a step runs some of them together. `gather` copies these to where the
// engine reads and draws their noise; `scatter` copies what the engine wrote back to the slots.
//
//   places [n]  the slot of each sample of the step; at an idle place ~slot, whose sample is
//               repeated there and not copied back
//
// The engine's arrays hold the n samples of the step, of e elements each:
//
//   x, noise, known, mask [n, e], history [k, n, e], row [n]
//
// Those of the slots:
//
//   slot_x, slot_noise [slots, e], slot_history [slots, k, e], slot_row [slots]
//   slot_known [slots, 2, e]  the known values and their mask, if the engine `knows` them
//   own [slots]               1 if slot_noise is the sample's noise; 0 if it is drawn here
//   samples, seeds [slots]    what to draw: the index of the sample under its seed
//   draws [rows]              the draw of each row of the table
//
// The work items are the n * ceil(e / 4) blocks; any launch of one dimension covers them.

#include "philox.cuh"

KERNEL difftool_gather(float* __restrict__ x, float* __restrict__ history,
                       float* __restrict__ noise, float* __restrict__ known,
                       float* __restrict__ mask, long long* __restrict__ row,
                       const float* __restrict__ slot_x, const float* __restrict__ slot_history,
                       const float* __restrict__ slot_noise, const float* __restrict__ slot_known,
                       const long long* __restrict__ slot_row, const int* __restrict__ own,
                       const unsigned* __restrict__ samples,
                       const unsigned long long* __restrict__ seeds,
                       const unsigned* __restrict__ draws, const int* __restrict__ places,
                       unsigned stream, int knows, int n, int k, int e) {
    const int blocks = (e + 3) / 4;
    const long long items = (long long)n * blocks;
    for (long long item = first_index(); item < items; item += index_stride()) {
        const int i = (int)(item / blocks), block = (int)(item % blocks);
        const long long slot = places[i] < 0 ? ~places[i] : places[i];
        float z[4];
        if (!own[slot]) normals(seeds[slot], stream, draws[slot_row[slot]], samples[slot], block, z);
        for (int lane = 0; lane < 4 && 4 * block + lane < e; ++lane) {
            const int element = 4 * block + lane;
            const long long to = (long long)i * e + element, from = slot * e + element;
            x[to] = slot_x[from];
            noise[to] = own[slot] ? slot_noise[from] : z[lane];
            for (int j = 0; j < k; ++j)
                history[((long long)j * n + i) * e + element] =
                    slot_history[(slot * k + j) * e + element];
            if (knows) {
                known[to] = slot_known[2 * slot * e + element];
                mask[to] = slot_known[(2 * slot + 1) * e + element];
            }
        }
        if (block == 0) row[i] = slot_row[slot];
    }
}

KERNEL difftool_scatter(float* __restrict__ slot_x, float* __restrict__ slot_history,
                        long long* __restrict__ slot_row, const float* __restrict__ x,
                        const float* __restrict__ history, const long long* __restrict__ row,
                        const int* __restrict__ places, int n, int k, int e) {
    const int blocks = (e + 3) / 4;
    const long long items = (long long)n * blocks;
    for (long long item = first_index(); item < items; item += index_stride()) {
        const int i = (int)(item / blocks), block = (int)(item % blocks);
        const long long slot = places[i];
        if (slot < 0) continue;
        for (int lane = 0; lane < 4 && 4 * block + lane < e; ++lane) {
            const int element = 4 * block + lane;
            slot_x[slot * e + element] = x[(long long)i * e + element];
            for (int j = 0; j < k; ++j)
                slot_history[(slot * k + j) * e + element] =
                    history[((long long)j * n + i) * e + element];
        }
        if (block == 0) slot_row[slot] = row[i];
    }
}
