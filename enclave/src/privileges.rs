//! What the process gives up before it does anything else.
//!
//! In a Confidential Space the launcher's socket belongs to root and only its
//! owner may write to it, so the image runs as root; what root may do beside
//! that, the enclave does not need. In the image of a Nitro enclave the init
//! has taken all of it already.

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

/// Gives up every capability, for good, of the calling thread and of those that
/// it starts from now on.
///
/// # Errors
/// As the system gives them.
pub fn give_up() -> std::io::Result<()> {
    set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_capability_is_left_and_none_can_be_gained() {
        // Of a thread of its own: what was given up does not come back.
        let status = std::thread::spawn(|| {
            give_up().unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let status = status.join().unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert_eq!(field(set), "0".repeat(16), "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
    }
}
