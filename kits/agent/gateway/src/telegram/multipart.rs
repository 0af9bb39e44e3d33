//! Bodies of `multipart/form-data` (RFC 7578), as the Bot API takes files.

use std::fmt::Write as _;

/// A text that no body has in it by chance.
pub fn boundary() -> String {
    let mut bytes = [0; 16];
    // Without random numbers a body may, very improbably, be cut: the call then fails.
    getrandom::fill(&mut bytes).ok();
    bytes.iter().fold("aegis".to_owned(), |mut text, byte| {
        // Writing into a text cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// A body with text fields and one file. Names are ours or were made plain.
pub fn body(
    boundary: &str,
    fields: &[(&str, String)],
    field: &str,
    file_name: &str,
    media_type: &str,
    bytes: &[u8],
) -> Vec<u8> {
    let mut head = String::new();
    for (name, value) in fields {
        write!(
            head,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        )
        .ok();
    }
    write!(
        head,
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; \
         filename=\"{file_name}\"\r\nContent-Type: {media_type}\r\n\r\n"
    )
    .ok();
    let tail = format!("\r\n--{boundary}--\r\n");
    [head.as_bytes(), bytes, tail.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_fields_and_the_bytes_of_the_file() {
        let body = body(
            "B",
            &[("chat_id", "5".into())],
            "photo",
            "a.png",
            "image/png",
            b"\x89P\r\n",
        );
        let expected = b"--B\r\nContent-Disposition: form-data; name=\"chat_id\"\r\n\r\n5\r\n\
            --B\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"a.png\"\r\n\
            Content-Type: image/png\r\n\r\n\x89P\r\n\r\n--B--\r\n";
        assert_eq!(body, expected);
        assert_ne!(boundary(), boundary());
    }
}
