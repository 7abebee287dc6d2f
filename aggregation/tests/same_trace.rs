//! The coordinate-wise rules and the integer path run the same instructions at
//! the same addresses, reading and writing the same places, whatever the values
//! are.
//!
//! The example `coordinate_rules` runs under valgrind, whose tool lackey writes
//! down every instruction and every access; the traces of different values have
//! to be equal, line by line. (What this cannot show: a processor on which an
//! instruction itself takes longer for some values, as some do for subnormal
//! ones.)

#![allow(clippy::unwrap_used)]

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

const SITES: usize = 9;
/// More than two blocks of 64, and a rest.
const VALUES: usize = 150;

/// Where valgrind places the loader, the first of the libraries.
const LIBRARIES: u64 = 0x400_0000;

/// The example's binary, which `cargo test` builds beside this one.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/coordinate_rules");
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build --example coordinate_rules`, in the profile of this test",
        path.display()
    );
    path
}

/// What was done: how many instructions, how many accesses, a hash of it all.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    instructions: u64,
    accesses: u64,
    hash: u64,
}

/// Whether a line is an instruction of the program itself, which valgrind places
/// below all libraries.
fn of_the_program(line: &str) -> bool {
    let address = line.strip_prefix('I').and_then(|rest| rest.trim_start().split(',').next());
    address.and_then(|hex| u64::from_str_radix(hex, 16).ok()).is_some_and(|at| at < LIBRARIES)
}

fn trace(folder: &Path, rule: &str, values: &[f32]) -> Trace {
    // The same names each time, so that the program starts with the same stack.
    let (input, log) = (folder.join("values"), folder.join("trace"));
    let bytes: Vec<_> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(&input, bytes).unwrap();
    // The debugger's file would stand in the process's map, which the program
    // reads when it starts, under a name as long as the process's number.
    let output = Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes", "--basic-counts=no", "--vgdb=no"])
        .arg(format!("--log-file={}", log.display()))
        .arg(example())
        .args([rule, &SITES.to_string()])
        .arg(&input)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .unwrap_or_else(|e| panic!("cannot run valgrind ({e}): apt install valgrind"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&log).unwrap();
    let (mut instructions, mut accesses, mut hasher) = (0, 0, DefaultHasher::new());
    // What the loader does before the program starts depends on the process's
    // number. Lines of valgrind's own, between the others, begin with it.
    let lines = text.lines().skip_while(|line| !of_the_program(line));
    for line in lines.filter(|line| !line.starts_with("==")) {
        if line.starts_with('I') {
            instructions += 1;
        } else {
            accesses += 1;
        }
        hasher.write(line.as_bytes());
    }
    Trace { instructions, accesses, hash: hasher.finish() }
}

/// Values of all sites, one site after the other.
fn sets() -> Vec<(&'static str, Vec<f32>)> {
    let all = |of: &dyn Fn(u16, u16) -> f32| -> Vec<f32> {
        (0..u16::try_from(SITES).unwrap())
            .flat_map(|site| (0..u16::try_from(VALUES).unwrap()).map(move |place| (site, place)))
            .map(|(site, place)| of(site, place))
            .collect()
    };
    let mixed = |site: u16, place: u16| {
        let mixed = (u32::from(site) * 1009 + u32::from(place) + 1).wrapping_mul(0x9e37_79b9);
        f32::from(u16::try_from(mixed >> 16).unwrap()) - 32768.0
    };
    vec![
        ("zeros", all(&|_, _| 0.0)),
        ("equal", all(&|_, _| -1.5)),
        ("rising", all(&|site, place| f32::from(site) + f32::from(place) / 256.0)),
        ("falling", all(&|site, place| -f32::from(site) - f32::from(place) / 256.0)),
        ("random", all(&mixed)),
        ("subnormal", all(&|site, place| f32::from_bits(u32::from(site * 1000 + place)))),
        ("huge", all(&|site, place| mixed(site, place) * 1e34)),
    ]
}

#[test]
fn the_values_do_not_show_in_what_is_run_and_touched() {
    let folder = std::env::temp_dir().join(format!("sealfold-trace-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let integers = ["clipped-int8", "clipped-int16", "clipped-int32"];
    for rule in ["median", "trimmed-mean", "bulyan"].into_iter().chain(integers) {
        let traces: Vec<_> =
            sets().iter().map(|(name, v)| (*name, trace(&folder, rule, v))).collect();
        let (first, expected) = &traces[0];
        println!("{rule}: {expected:?}");
        assert!(expected.instructions > 10_000 && expected.accesses > 10_000, "{expected:?}");
        for (name, found) in &traces {
            assert_eq!(found, expected, "{rule}: {name} beside {first}");
        }
    }
    // A rule that does depend on them is caught.
    let plain: Vec<_> = sets()[2..4].iter().map(|(_, v)| trace(&folder, "plain-sort", v)).collect();
    assert_ne!(plain[0].hash, plain[1].hash, "rising beside falling");
    std::fs::remove_dir_all(&folder).unwrap();
}
