// One row of a program after the bare network, in one launch: the equations of
// difftool/diffusion/program.py with clip, history and learned variance, and without what a row
// can ask for only of a step graph ("norms", "guidance", "known").
//
//   x_next        [n, e]         out: x'
//   history_next  [slots, n, e]  out: H'
//   row_next      [n]            out: row + 1
//   denoised      [n, e]         out: D
//   scaled_next   [n, e]         out: c_in of the next row times x', what the network takes next;
//                                x' itself after the table's last row
//   x             [n, e]
//   network       [n, e]         F, or [n, 2 e] with learned variance: F, then v, of each sample
//   history       [slots, n, e]
//   noise         [n, e]         z, or null: then z is drawn here, as difftool_noise draws it
//   row           [n]            a sample outside the table is done: it keeps x, history and row
//   table         [rows, HISTORY + slots]
//   draws, samples, seed, stream: as difftool_noise takes them; unused where noise is given
//
// No two buffers overlap. The work items are the n * ceil(e / 4) blocks; any launch of one
// dimension covers them.

#include "philox.cuh"

// The columns of difftool/diffusion/columns.py.
enum Column {
    COND = 0,
    C_IN = 1,
    C_SKIP = 2,
    C_OUT = 3,
    CLIP_LOW = 4,
    CLIP_HIGH = 5,
    A = 6,
    B = 7,
    G = 8,
    D = 9,
    E = 10,
    F = 11,
    LOGVAR_MIN = 12,
    LOGVAR_MAX = 13,
    SNR = 14,
    BATCH_SNR = 15,
    NULL_COND = 16,
    GUIDANCE = 17,
    HISTORY = 18,
};

// Unlike fminf and fmaxf this keeps a NaN, as numpy and torch do: a network that breaks must show.
DEVICE float clip(float value, float low, float high) {
    return value < low ? low : value > high ? high : value;
}

KERNEL difftool_row(float* __restrict__ x_next, float* __restrict__ history_next,
                    long long* __restrict__ row_next, float* __restrict__ denoised,
                    float* __restrict__ scaled_next, const float* __restrict__ x,
                    const float* __restrict__ network, const float* __restrict__ history,
                    const float* __restrict__ noise, const long long* __restrict__ row,
                    const float* __restrict__ table, const unsigned* __restrict__ draws,
                    const unsigned* __restrict__ samples,
                    const unsigned long long* __restrict__ seed, unsigned stream, int n, int e,
                    int slots, int rows, int learned_variance) {
    const int columns = HISTORY + slots, blocks = (e + 3) / 4;
    const long long items = (long long)n * blocks, slot = (long long)n * e;
    for (long long item = first_index(); item < items; item += index_stride()) {
        const int sample = (int)(item / blocks), block = (int)(item % blocks);
        const long long at = row[sample];
        const long long first = (long long)sample * e + 4 * block;
        const int lanes = e - 4 * block < 4 ? e - 4 * block : 4;
        const bool done = at < 0 || at >= rows;
        if (block == 0) row_next[sample] = done ? at : at + 1;
        if (done) {
            for (long long i = first; i < first + lanes; ++i) {
                x_next[i] = scaled_next[i] = x[i];
                for (int k = 0; k < slots; ++k) history_next[k * slot + i] = history[k * slot + i];
            }
            continue;
        }

        const float* c = table + at * columns;
        const float c_in_next = at + 1 < rows ? c[columns + C_IN] : 1.0f;
        float z[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (!noise && c[D] != 0.0f) normals(*seed, stream, draws[at], samples[sample], block, z);
        for (int lane = 0; lane < lanes; ++lane) {
            const long long i = first + lane;
            const float* f = network + i + (learned_variance ? (long long)sample * e : 0);

            float spread = c[D];
            if (learned_variance) {
                const float fraction = (f[e] + 1.0f) / 2.0f;
                const float range = c[LOGVAR_MAX] - c[LOGVAR_MIN];
                spread *= expf(0.5f * (c[LOGVAR_MIN] + fraction * range));
            }
            const float d = clip(c[C_SKIP] * x[i] + c[C_OUT] * *f, c[CLIP_LOW], c[CLIP_HIGH]);

            float past = 0.0f;
            for (int k = 0; k < slots; ++k) past += c[HISTORY + k] * history[k * slot + i];
            const float fresh = spread * (noise ? noise[i] : z[lane]);
            const float after = c[A] * x[i] + c[B] * d + c[G] * *f + past + fresh;

            history_next[i] = c[E] * x[i] + c[F] * d;
            for (int k = 1; k < slots; ++k)
                history_next[k * slot + i] = history[(k - 1) * slot + i];
            denoised[i] = d;
            x_next[i] = after;
            scaled_next[i] = c_in_next * after;
        }
    }
}
