//! Compressed segments as streams of their content.
//!
//! Both formats are streams of frames one after another (gzip calls them members): a file may be compressed in pieces. A
//! frame's checksum is looked at where it has one. A few bytes may unpack to any number: there is a bound ([`bounded`]).

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Take};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What is read of the file at once.
const CHUNK_BYTES: usize = 32 << 10;

/// What a decoder of Zstandard must keep of what it has unpacked. RFC 8878 §3.1.1.1.2 recommends that readers take
/// 8 MiB, and that is what `zstd -19` asks for; only `--ultra` and `--long` want more.
const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// What every file may unpack to: twice our longest segment.
const CONTENT_BYTES_FREE: u64 = 256 << 20;

/// How many times its length a longer content may have. gzip reaches 1,030 and Zstandard any number, but not with lines that have
/// different times in them: those of the same few events take a fortieth, with `zstd -19` a hundredth.
const RATIO_MAX: u64 = 250;

/// Ends what is unpacked of a file of `packed_bytes` with an error, where it is more than any log has.
pub(super) fn bounded<R: Read>(content: R, packed_bytes: u64) -> impl Read + use<R> {
    Bounded { content: content.take(packed_bytes.saturating_mul(RATIO_MAX).max(CONTENT_BYTES_FREE)) }
}

struct Bounded<R> {
    content: Take<R>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.content.limit() > 0 || buffer.is_empty() {
            return self.content.read(buffer);
        }
        match self.content.get_mut().read(&mut buffer[..1])? {
            0 => Ok(0),
            _ => Err(io::Error::new(
                ErrorKind::FileTooLarge,
                format!(
                    "unpacks to more than {} MiB and {RATIO_MAX} times its length: no log does",
                    CONTENT_BYTES_FREE >> 20
                ),
            )),
        }
    }
}

/// Unpacks gzip.
pub(super) fn gzip<R: Read>(packed: R) -> impl Read + use<R> {
    MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, packed))
}

/// Unpacks Zstandard.
pub(super) fn zstd<R: Read>(packed: R) -> impl Read + use<R> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW_BYTES_MAX);
    Zstd { packed: BufReader::with_capacity(CHUNK_BYTES, packed), decoder, state: State::Beginning }
}

struct Zstd<R> {
    packed: BufReader<R>,
    decoder: FrameDecoder,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Beginning,
    InFrame,
    BetweenFrames,
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.state == State::InFrame {
                while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                    self.decoder
                        .decode_blocks(&mut self.packed, BlockDecodingStrategy::UptoBlocks(1))
                        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
                }
                match self.decoder.read(buffer)? {
                    0 if self.decoder.is_finished() => self.end_frame()?,
                    some => return Ok(some),
                }
            }
            if self.packed.fill_buf()?.is_empty() {
                // gzip, too, says of an empty file that it is cut.
                return if self.state == State::Beginning { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(0) };
            }
            self.begin_frame()?;
        }
    }
}

impl<R: Read> Zstd<R> {
    fn begin_frame(&mut self) -> io::Result<()> {
        match self.decoder.reset(&mut self.packed) {
            Ok(()) => self.state = State::InFrame,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = u64::from(length);
                if io::copy(&mut self.packed.by_ref().take(length), &mut io::sink())? < length {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                self.state = State::BetweenFrames;
            }
            Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
        }
        Ok(())
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.state = State::BetweenFrames;
        match self.decoder.get_checksum_from_data() {
            Some(checksum) if self.decoder.get_calculated_checksum() != Some(checksum) => {
                Err(io::Error::new(ErrorKind::InvalidData, "the checksum is wrong"))
            }
            _ => Ok(()),
        }
    }
}
