//! Files that are no UTF-8 text, told by their first bytes.

/// Bytes at the beginning of a file that are looked at.
const LOOKED_AT: usize = 1024;

/// What a file is that holds no records as they are, and what to do; `None` if it may be text.
pub fn not_text(start: &[u8]) -> Option<&'static str> {
    const UTF16: &str = "it is UTF-16 text: convert it to UTF-8, for example with iconv -f UTF-16 -t UTF-8";
    const KNOWN: [(&[u8], &str); 8] = [
        (
            b"\xff\xfe\0\0",
            "it is UTF-32 text: convert it to UTF-8, for example with iconv -f UTF-32 -t UTF-8",
        ),
        (
            b"\0\0\xfe\xff",
            "it is UTF-32 text: convert it to UTF-8, for example with iconv -f UTF-32 -t UTF-8",
        ),
        (b"\xff\xfe", UTF16),
        (b"\xfe\xff", UTF16),
        (b"\x1f\x8b", "it is compressed with gzip: decompress it first, for example with gunzip"),
        (
            b"\x28\xb5\x2f\xfd",
            "it is compressed with Zstandard: decompress it first, for example with unzstd",
        ),
        (b"PK\x03\x04", "it is a zip archive or an Excel workbook: store the CSV or JSON lines themselves"),
        (b"PAR1", "it is a Parquet file: give it a name that ends in .parquet"),
    ];
    let known = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what);
    let has_nul = || start.iter().take(LOOKED_AT).any(|byte| *byte == 0);
    known.or_else(|| {
        has_nul().then_some(
            "it has NUL bytes, as UTF-16 text without a byte order mark has: write it as UTF-8 text",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_named() {
        let named = |bytes: &[u8], word: &str| assert!(not_text(bytes).unwrap().contains(word), "{word}");
        named(b"\xff\xfei\0n\0", "UTF-16");
        named(b"\xfe\xff\0i\0n", "UTF-16");
        named(b"i\0n\0p\0u\0t\0", "UTF-16");
        named(b"\xff\xfe\0\0i\0\0\0", "UTF-32");
        named(b"\x1f\x8b\x08\0", "gzip");
        named(b"\x28\xb5\x2f\xfd\x24", "Zstandard");
        named(b"PK\x03\x04\x14", "Excel");
        named(b"PAR1\x15", "Parquet");
        for text in [&b"\xef\xbb\xbfinput\n"[..], b"caf\xe9\n", b"", b"{}\n"] {
            assert_eq!(not_text(text), None);
        }
    }
}
