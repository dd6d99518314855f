// Which instructions the processor at hand can run, and which of our kernels to use on it.
//
// The library is compiled for one baseline (`make ARCH=`, x86-64-v3 unless told otherwise), checked when the
// program starts.  A few kernels also exist for wider instruction sets; they are chosen here, once, while
// running.
#pragma once

namespace mixrec {

// Instruction sets for which a kernel may have a version of its own, each including those before it.
enum class Isa { baseline, avx2, avx512 };

const char* isa_name(Isa isa);

// The widest one this processor and its operating system run: avx2 means AVX2 with FMA, avx512 means F, BW,
// DQ and VL.
Isa widest_isa();

// The one to use: the widest or, where the environment sets it, MIXREC_ISA=baseline|avx2|avx512.
// Throws on an unknown name and on one that this processor does not run.
Isa current_isa();

// Overrides it for the whole process; throws as above.
void set_isa(Isa isa);

}  // namespace mixrec
