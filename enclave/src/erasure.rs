//! Erasing what calls into libraries leave on the stack.
//!
//! Secrets and plaintext lie in buffers that are erased when they are dropped.
//! But ciphers, hashes and the key encapsulation work on copies in their own
//! stack frames, which nobody erases when they return. The memory is the same
//! for all calls from one place, so a call that writes zeros there does it.

use zeroize::Zeroize;

/// Deeper than any call of the ciphers, the hashes and the key encapsulation.
const DEPTH: usize = 256 << 10;

/// Calls, and writes zeros over what the call left below on this thread's
/// stack.
pub fn with_wiped_stack<T>(call: impl FnOnce() -> T) -> T {
    let result = in_a_frame_of_its_own(call);
    wipe();
    result
}

#[inline(never)]
fn in_a_frame_of_its_own<T>(call: impl FnOnce() -> T) -> T {
    call()
}

#[inline(never)]
fn wipe() {
    #[allow(clippy::large_stack_arrays)] // the stack is what it is about
    let mut left = [0_u8; DEPTH];
    left.zeroize();
    std::hint::black_box(&left);
}
