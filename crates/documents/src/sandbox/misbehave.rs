//! A parser that has gone wrong, in the ways that the parent must survive; only tests and `docmill doctor` ask for it.

use crate::frames::{self, Kind, OcrRequest, Reading};
use docmill_model::{Code, Failure};

/// Sends a frame to the parent.
type Write<'a> = dyn FnMut(Kind, &[u8]) -> Result<(), Failure> + 'a;

/// Misbehaves in the named way.
///
/// # Errors
/// `FIELD_INVALID` for an unknown way; otherwise the process does not come back, or `write` fails.
pub(super) fn misbehave(how: &str, write: &mut Write) -> Result<(), Failure> {
    match how {
        "spin" => spin(),
        "sleep" => sleep(),
        "close" => {
            let _ = nix::unistd::close(1);
            sleep()
        }
        "garble" => {
            write(Kind::Failed, b"{")?;
            sleep()
        }
        "abort" => std::process::abort(),
        "overflow" => overflow(1),
        "panic" => std::panic::resume_unwind(Box::new(())),
        "memory" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 8 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        "flood" => loop {
            write(Kind::Chunk, &[b' '; 64 << 10])?;
        },
        "images" => loop {
            let (reading, languages) = (Reading::Page, "eng".to_owned());
            let request = OcrRequest { id: 1, width: 1, height: 1, dpi: 100, reading, languages };
            let header = frames::message(&request).map_err(|_| Failure::new(Code::Internal, "no frame"))?;
            write(Kind::Ocr, &[header, vec![0]].concat())?;
        },
        _ => Err(Failure::new(Code::FieldInvalid, "no such misbehaviour")),
    }
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3_600));
    }
}

fn spin() -> ! {
    let mut x = 0u64;
    loop {
        x = std::hint::black_box(x.wrapping_mul(3).wrapping_add(1));
    }
}

#[allow(unconditional_recursion, reason = "overflowing the stack is the purpose")]
fn overflow(depth: u64) -> Result<(), Failure> {
    let frame = std::hint::black_box([depth; 64]);
    let below = overflow(frame[0] + 1);
    std::hint::black_box(frame);
    below
}
