// What ends a WHILE node: it runs its body again as long as the first sample's row is below the end.
//
//   handle        of the node's condition
//   row  [n]      the row of each sample after the body
//   end  [1]      the row at which to stop

typedef __device_builtin__ unsigned long long cudaGraphConditionalHandle;
extern "C" __device__ __cudart_builtin__ void cudaGraphSetConditional(
    cudaGraphConditionalHandle handle, unsigned value);

extern "C" __global__ void difftool_loop(cudaGraphConditionalHandle handle, const long long* row,
                                         const long long* end) {
    cudaGraphSetConditional(handle, row[0] < end[0]);
}
