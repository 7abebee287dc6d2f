//! The machine: file systems, loopback, privileges, power.

use crate::InitError;
use rustix::mount::{MountFlags, mount, mount_remount};
use rustix::system::{RebootCommand, reboot};
use std::io;
use std::os::unix::fs::PermissionsExt;

/// Mounts `/proc`, `/sys`, `/dev` and `/tmp`, lets the enclave's user open the
/// NSM, and makes the root unwritable.
pub fn mount_file_systems() -> Result<(), InitError> {
    let tight = MountFlags::NOSUID | MountFlags::NOEXEC;
    let plan = [
        ("proc", "/proc", tight | MountFlags::NODEV, c""),
        ("sysfs", "/sys", tight | MountFlags::NODEV | MountFlags::RDONLY, c""),
        ("devtmpfs", "/dev", tight, c"mode=0755"),
        ("tmpfs", "/tmp", tight | MountFlags::NODEV, c"size=1m,mode=1777"),
    ];
    for (kind, target, flags, data) in plan {
        std::fs::create_dir_all(target)
            .map_err(|e| InitError::new("mount", "a folder for every file system", e))?;
        match mount(kind, target, kind, flags, data) {
            // The kernel mounts devtmpfs itself where it is told to.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => {
                let found = format!("{kind} on {target}: {error}");
                return Err(InitError::new("mount", "a kernel with this file system", found));
            }
        }
    }
    std::fs::set_permissions("/dev/nsm", std::fs::Permissions::from_mode(0o666))
        .map_err(|e| InitError::new("nsm", "the device /dev/nsm of a Nitro enclave", e))?;
    mount_remount("/", MountFlags::RDONLY, c"")
        .map_err(|e| InitError::new("mount", "a root that can be made unwritable", e))
}

/// Brings up `lo`, which has its address 127.0.0.1 from the kernel then.
pub fn bring_up_loopback() -> Result<(), InitError> {
    loopback_up()
        .map_err(|e| InitError::new("loopback", "an interface lo that can be brought up", e))
}

/// `struct ifreq` of <linux/if.h>, as far as its flags; 40 bytes on 64 bits.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

#[allow(unsafe_code)]
fn loopback_up() -> io::Result<()> {
    use rustix::ioctl::{Setter, ioctl};
    use rustix::net::{AddressFamily, SocketType, socket};

    const SIOCSIFFLAGS: rustix::ioctl::Opcode = 0x8914;
    const IFF_UP: u16 = 1;
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_UP, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: SIOCSIFFLAGS reads a `struct ifreq`, which `InterfaceRequest`
    // has the size and the layout of, and writes nothing.
    unsafe { ioctl(&socket, Setter::<SIOCSIFFLAGS, InterfaceRequest>::new(request)) }?;
    Ok(())
}

/// Empties the bounding set, so that nothing started from here can hold a
/// capability, and forbids gaining any by execution.
pub fn give_away_privileges() -> Result<(), InitError> {
    let wrong = |e: rustix::io::Errno| {
        InitError::new("privileges", "that capabilities can be given away", e)
    };
    for bit in 0..64 {
        let capability = rustix::thread::CapabilitySet::from_bits_retain(1 << bit);
        // The kernel answers EINVAL for a capability that it does not know.
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => {
                rustix::thread::remove_capability_from_bounding_set(capability).map_err(wrong)?;
            }
            Ok(false) => {}
            Err(_) => break,
        }
    }
    rustix::thread::set_no_new_privs(true).map_err(wrong)
}

/// Ends the machine. On Nitro a restart is how an enclave ends: the hypervisor
/// terminates it; an emulator is told not to start it again.
pub fn power_off() -> ! {
    rustix::fs::sync();
    let error = reboot(RebootCommand::Restart);
    println!("init: the machine does not power off: {error:?}");
    loop {
        std::thread::park();
    }
}
