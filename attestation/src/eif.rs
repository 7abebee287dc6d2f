//! The measurements of an enclave image file (EIF), without running it.
//!
//! So that a site need not believe what an operator says of an image: it has
//! the file, or builds it, and computes what the hypervisor will report. The
//! format is described in the README of `aws-nitro-enclaves-image-format`; a
//! PCR is SHA-384(48 zeros ‖ SHA-384(contents)).
//!
//! The file is read in one pass with a fixed buffer, whatever its header says.

use crate::policy::{Bytes, Measurement};
use minicbor::Decoder;
use ring::digest::{Context, SHA384};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::io::{self, Read};
use webpki::EndEntityCert;

/// The header: magic, version, flags, memory, CPUs, sections, CRC.
const HEADER: usize = 548;
/// A section's header: type, flags, size.
const SECTION: usize = 12;
/// The most sections of a file.
const MAX_SECTIONS: usize = 32;
/// The longest signature section: a certificate and a signature.
const MAX_SIGNATURE: u64 = 64 << 10;
/// The longest command line that x86 takes.
const MAX_COMMAND_LINE: u64 = 2048;
/// Up to here a bzImage says how long it is.
const KERNEL_HEAD: usize = 0x206;
/// The version of the format that is read.
const VERSION: u16 = 4;

/// Why a file has no measurements.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EifError {
    /// The file is no EIF that this program understands.
    #[error("enclave image file: {what}: expected {expected}, found {found}")]
    Format {
        /// Which part.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The file cannot be read, or ends too early.
    #[error("enclave image file: {0}")]
    Read(#[from] io::Error),
}

fn wrong(what: &'static str, expected: impl ToString, found: impl ToString) -> EifError {
    EifError::Format { what, expected: expected.to_string(), found: found.to_string() }
}

/// Where a section may stand; the order in which they are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Kernel,
    CommandLine,
    Metadata,
    Ramdisk,
    Signature,
}

impl Section {
    fn of(number: u16) -> Result<Self, EifError> {
        Ok(match number {
            1 => Self::Kernel,
            2 => Self::CommandLine,
            3 => Self::Ramdisk,
            4 => Self::Signature,
            5 => Self::Metadata,
            other => return Err(wrong("section type", "1 to 5", other)),
        })
    }
}

/// A header's fields that are used.
struct Header {
    sizes: Vec<u64>,
    offsets: Vec<u64>,
    crc: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Self, EifError> {
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u64_at = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(eight)
        };
        if bytes[..4] != *b".eif" {
            return Err(wrong("magic", "the bytes \".eif\"", format!("{:?}", &bytes[..4])));
        }
        if u16_at(4) != VERSION {
            return Err(wrong("version", VERSION, u16_at(4)));
        }
        if u16_at(6) != 0 {
            return Err(wrong("flags", "0 (x86_64)", u16_at(6)));
        }
        let count = usize::from(u16_at(26));
        if !(4..=MAX_SECTIONS).contains(&count) {
            return Err(wrong("number of sections", "4 to 32", count));
        }
        Ok(Self {
            offsets: (0..count).map(|i| u64_at(28 + 8 * i)).collect(),
            sizes: (0..count).map(|i| u64_at(284 + 8 * i)).collect(),
            crc: u32::from_be_bytes([bytes[544], bytes[545], bytes[546], bytes[547]]),
        })
    }
}

/// Measures an image file.
///
/// # Errors
/// [`EifError`] for a file that is not whole, has parts that no measurement
/// covers where one is expected, or is of another version of the format.
pub fn measure(mut file: impl Read) -> Result<Measurement, EifError> {
    let mut header = [0; HEADER];
    file.read_exact(&mut header)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..HEADER - 4]);
    let header = Header::parse(&header)?;
    let [mut image, mut boot, mut application] = [(); 3].map(|()| Context::new(&SHA384));
    let (mut offset, mut ramdisks, mut certificate) = (HEADER as u64, 0, None);
    let mut buffer = vec![0; 1 << 16];
    for (place, (size, stated)) in header.sizes.iter().zip(&header.offsets).enumerate() {
        let mut head = [0; SECTION];
        file.read_exact(&mut head)?;
        crc.update(&head);
        let kind = Section::of(u16::from_be_bytes([head[0], head[1]]))?;
        let mut own = [0; 8];
        own.copy_from_slice(&head[4..]);
        let own = u64::from_be_bytes(own);
        if (*stated, *size) != (offset, own) {
            let expected = format!("{own} bytes at {offset}");
            return Err(wrong("section", expected, format!("{size} bytes at {stated}")));
        }
        let fits = match place {
            0 => kind == Section::Kernel,
            1 => kind == Section::CommandLine,
            2 => kind == Section::Metadata,
            _ => kind == Section::Ramdisk || (kind == Section::Signature && ramdisks > 0),
        };
        if !fits || certificate.is_some() {
            let expected = "kernel, command line, metadata, ramdisks, perhaps a signature";
            return Err(wrong(
                "order of sections",
                expected,
                format!("{kind:?} as number {place}"),
            ));
        }
        ramdisks += usize::from(kind == Section::Ramdisk);
        let mut kept = Vec::new();
        let mut left = own;
        if kind == Section::Signature && own > MAX_SIGNATURE {
            return Err(wrong("signature", "at most 64 KiB", own));
        }
        if kind == Section::CommandLine && own > MAX_COMMAND_LINE {
            return Err(wrong("command line", "at most 2 KiB", own));
        }
        if own == 0 && kind != Section::Metadata {
            return Err(wrong("section", "bytes that are measured", format!("an empty {kind:?}")));
        }
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let piece = &mut buffer[..take];
            file.read_exact(piece)?;
            left -= take as u64;
            crc.update(piece);
            match kind {
                Section::Kernel | Section::CommandLine => {
                    image.update(piece);
                    boot.update(piece);
                    let room = usize::try_from(MAX_COMMAND_LINE).unwrap_or(0) - kept.len();
                    kept.extend_from_slice(&piece[..take.min(room)]);
                }
                Section::Ramdisk => {
                    image.update(piece);
                    if ramdisks == 1 { boot.update(piece) } else { application.update(piece) }
                }
                Section::Metadata => {}
                Section::Signature => kept.extend_from_slice(piece),
            }
        }
        match kind {
            Section::Kernel => expect_nothing_behind(&kept, own)?,
            Section::CommandLine => expect_text(&kept)?,
            Section::Signature => certificate = Some(signer(&kept)?),
            Section::Metadata | Section::Ramdisk => {}
        }
        offset = offset.saturating_add(SECTION as u64).saturating_add(own);
    }
    if file.read(&mut buffer)? != 0 {
        return Err(wrong("end", "nothing after the last section", "more bytes"));
    }
    if ramdisks < 2 {
        let expected = "two or more: without a second, PCR2 measures nothing";
        return Err(wrong("ramdisks", expected, ramdisks));
    }
    let found = crc.finalize();
    if found != header.crc {
        return Err(wrong("CRC-32", format!("{:08x}", header.crc), format!("{found:08x}")));
    }
    let pcr8 = certificate.map(|der| {
        let mut context = Context::new(&SHA384);
        context.update(&der);
        extend(context)
    });
    let [pcr0, pcr1, pcr2] = [image, boot, application].map(extend);
    Ok(Measurement { name: String::new(), pcr0, pcr1, pcr2, pcr8 })
}

/// The registers cover kernel, command line and ramdisks without their lengths,
/// so bytes behind the kernel could be the command line's: a bzImage says how
/// long it is (Linux, Documentation/arch/x86/boot.rst).
fn expect_nothing_behind(head: &[u8], length: u64) -> Result<(), EifError> {
    let Some(head) = head.get(..KERNEL_HEAD).filter(|head| head[0x202..] == *b"HdrS") else {
        return Err(wrong("kernel", "a bzImage", "something else"));
    };
    let sectors = if head[0x1f1] == 0 { 4 } else { u64::from(head[0x1f1]) };
    let paragraphs = u32::from_le_bytes([head[0x1f4], head[0x1f5], head[0x1f6], head[0x1f7]]);
    let own = (sectors + 1) * 512 + u64::from(paragraphs) * 16;
    if own != length {
        return Err(wrong("kernel", format!("{own} bytes, as it says"), length));
    }
    Ok(())
}

/// Nor is a part of a ramdisk the command line's.
fn expect_text(line: &[u8]) -> Result<(), EifError> {
    match line.iter().find(|byte| !(b' '..=b'~').contains(*byte)) {
        Some(byte) => Err(wrong("command line", "printable ASCII", format!("{byte:#04x}"))),
        None => Ok(()),
    }
}

/// The value of a register, once extended by a digest.
fn extend(contents: Context) -> Bytes<48> {
    let mut context = Context::new(&SHA384);
    context.update(&[0; 48]);
    context.update(contents.finish().as_ref());
    let mut register = [0; 48];
    register.copy_from_slice(context.finish().as_ref());
    Bytes(register)
}

/// The DER of the certificate in a signature section: a CBOR array of maps
/// with `signing_certificate` (PEM, as an array of numbers) and `signature`.
fn signer(section: &[u8]) -> Result<Vec<u8>, EifError> {
    let broken = |found: String| wrong("signature", "a signing certificate", found);
    let pem = certificate_of(section).map_err(|error| broken(error.to_string()))?;
    // One block and nothing else, so that all readers see the same certificate.
    let text = String::from_utf8_lossy(&pem);
    let text = text.trim_end();
    let blocks = text.matches("-----BEGIN").count();
    let (start, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    if blocks != 1 || !text.starts_with(start) || !text.ends_with(end) {
        return Err(wrong("signature", "one CERTIFICATE in PEM, and nothing else", text.len()));
    }
    let der = CertificateDer::from_pem_slice(&pem).map_err(|error| broken(error.to_string()))?;
    EndEntityCert::try_from(&der).map_err(|error| broken(error.to_string()))?;
    Ok(der.to_vec())
}

fn certificate_of(section: &[u8]) -> Result<Vec<u8>, minicbor::decode::Error> {
    let mut decoder = Decoder::new(section);
    let missing = minicbor::decode::Error::message("no signing_certificate");
    if decoder.array()? != Some(1) {
        return Err(minicbor::decode::Error::message("expected one signature"));
    }
    for _ in 0..decoder.map()?.unwrap_or(0) {
        if decoder.str()? == "signing_certificate" {
            let length = decoder.array()?.unwrap_or(0);
            // No more numbers than there are bytes.
            let mut pem = Vec::new();
            for _ in 0..length {
                pem.push(decoder.u8()?);
            }
            return Ok(pem);
        }
        decoder.skip()?;
    }
    Err(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An EIF of these sections, with a right CRC.
    fn eif(sections: &[(u16, &[u8])]) -> Vec<u8> {
        let mut header = vec![0; HEADER];
        header[..4].copy_from_slice(b".eif");
        header[4..6].copy_from_slice(&VERSION.to_be_bytes());
        header[26..28].copy_from_slice(&u16::try_from(sections.len()).unwrap().to_be_bytes());
        let mut body = Vec::new();
        for (i, (kind, bytes)) in sections.iter().enumerate() {
            let offset = (HEADER + body.len()) as u64;
            header[28 + 8 * i..36 + 8 * i].copy_from_slice(&offset.to_be_bytes());
            let size = (bytes.len() as u64).to_be_bytes();
            header[284 + 8 * i..292 + 8 * i].copy_from_slice(&size);
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&[0; 2]);
            body.extend_from_slice(&size);
            body.extend_from_slice(bytes);
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[..HEADER - 4]);
        crc.update(&body);
        header[HEADER - 4..].copy_from_slice(&crc.finalize().to_be_bytes());
        [header, body].concat()
    }

    /// A bzImage of one setup sector and one paragraph.
    const KERNEL: [u8; 1040] = {
        let mut bytes = [7; 1040];
        (bytes[0x1f1], bytes[0x1f4]) = (1, 1);
        (bytes[0x1f5], bytes[0x1f6], bytes[0x1f7]) = (0, 0, 0);
        (bytes[0x202], bytes[0x203], bytes[0x204], bytes[0x205]) = (b'H', b'd', b'r', b'S');
        bytes
    };

    const GOOD: [(u16, &[u8]); 5] =
        [(1, &KERNEL), (2, b"quiet"), (5, b"{}"), (3, b"init"), (3, b"app")];

    #[test]
    fn registers_cover_the_parts_that_they_are_named_for() {
        let all = measure(&eif(&GOOD)[..]).unwrap();
        // Computed with Python: sha384(bytes(48) + sha384(b"app").digest()).
        let app = "b76036a6963404c7fe1249127a5c2fc684090bd30f0386d9b643e2e11e203f2fb62d50ea1af96ad3bc6ba974c3b1c79a";
        assert_eq!(hex::encode(all.pcr2.0), app);
        let mut app = GOOD;
        app[4].1 = b"apq";
        let other = measure(&eif(&app)[..]).unwrap();
        assert_eq!((all.pcr1, all.pcr8), (other.pcr1, other.pcr8));
        assert!(all.pcr0 != other.pcr0 && all.pcr2 != other.pcr2);
        let mut metadata = GOOD;
        metadata[2].1 = b"{\"a\":1}";
        assert_eq!(measure(&eif(&metadata)[..]).unwrap(), all);
        let mut boot = GOOD;
        boot[3].1 = b"exit";
        let other = measure(&eif(&boot)[..]).unwrap();
        assert!(all.pcr1 != other.pcr1 && all.pcr2 == other.pcr2);
    }

    #[test]
    fn every_changed_or_missing_byte_is_refused() {
        let good = eif(&GOOD);
        let measured = measure(&good[..]).unwrap();
        for place in 0..good.len() {
            let mut changed = good.clone();
            changed[place] ^= 0x41;
            assert!(measure(&changed[..]).is_err(), "byte {place}");
            assert!(measure(&good[..place]).is_err(), "cut at {place}");
        }
        assert!(measure(&[&good[..], b"x"].concat()[..]).is_err());
        assert_eq!(measure(&good[..]).unwrap(), measured);
    }

    #[test]
    fn bytes_that_moved_between_kernel_command_line_and_ramdisk_are_refused() {
        let refused =
            |sections: &[(u16, &[u8])]| measure(&eif(sections)[..]).unwrap_err().to_string();
        // The same registers, and a kernel with another command line.
        let longer = [&KERNEL[..], b"qui"].concat();
        let text = refused(&[(1, &longer), (2, b"et"), GOOD[2], GOOD[3], GOOD[4]]);
        assert!(text.contains("kernel: expected 1040 bytes, as it says, found 1043"), "{text}");
        let text = refused(&[GOOD[0], (2, b"quiet\x1f\x8b"), GOOD[2], GOOD[3], GOOD[4]]);
        assert!(text.contains("command line: expected printable ASCII"), "{text}");
        for empty in [1, 3, 4] {
            let mut sections = GOOD;
            sections[empty].1 = b"";
            assert!(refused(&sections).contains("found an empty"), "{empty}");
        }
        let text = refused(&[(1, b"kernel"), GOOD[1], GOOD[2], GOOD[3], GOOD[4]]);
        assert!(text.contains("expected a bzImage"), "{text}");
    }

    #[test]
    fn parts_in_another_order_or_number_are_refused() {
        for sections in [
            &[GOOD[1], GOOD[0], GOOD[2], GOOD[3], GOOD[4]][..],
            &[GOOD[0], GOOD[1], GOOD[2], GOOD[3]],
            &[GOOD[0], GOOD[1], GOOD[2], GOOD[3], GOOD[4], GOOD[0]],
            &[GOOD[0], GOOD[1], GOOD[2], (4, b"x"), GOOD[3], GOOD[4]],
            &[GOOD[0], GOOD[1], GOOD[2], GOOD[3], GOOD[4], (4, b"\x81\xa0")],
        ] {
            assert!(measure(&eif(sections)[..]).is_err(), "{sections:?}");
        }
    }
}
