//! The text of a web page, roughly. Pure.

/// Elements whose content is not text for people.
const SKIPPED: [&str; 6] = ["script", "style", "noscript", "template", "svg", "head"];
/// Elements that start a new line.
const LINES: [&str; 20] = [
    "p",
    "div",
    "br",
    "li",
    "ul",
    "ol",
    "tr",
    "table",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "section",
    "article",
    "header",
    "footer",
    "pre",
    "blockquote",
];

/// Text without tags, entities resolved, spaces folded.
#[must_use]
pub(super) fn text(html: &str) -> String {
    let mut out = String::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        push(&mut out, &rest[..start]);
        rest = &rest[start..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let Some(end) = rest.find('>') else {
            rest = "";
            break;
        };
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        let closing = tag.starts_with('/');
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        if !closing && !tag.ends_with('/') && SKIPPED.contains(&name.as_str()) {
            rest = after_end(rest, &name);
        } else if LINES.contains(&name.as_str()) && !out.ends_with('\n') {
            out.push('\n');
        }
    }
    push(&mut out, rest);
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    let mut folded: Vec<&str> = Vec::new();
    for line in lines {
        if !line.is_empty() || folded.last().is_some_and(|last| !last.is_empty()) {
            folded.push(line);
        }
    }
    folded.join("\n").trim().to_owned()
}

/// What follows `</name>`.
fn after_end<'a>(text: &'a str, name: &str) -> &'a str {
    let end = format!("</{name}");
    let found = text
        .as_bytes()
        .windows(end.len())
        .position(|w| w.eq_ignore_ascii_case(end.as_bytes()));
    // An ASCII tag starts there, so it is a boundary of characters.
    let rest = found.map_or("", |at| &text[at..]);
    rest.split_once('>').map_or("", |(_, after)| after)
}

fn push(out: &mut String, text: &str) {
    for (at, word) in text.split_whitespace().enumerate() {
        let gap = at > 0 || text.starts_with(char::is_whitespace);
        if gap && !out.is_empty() && !out.ends_with(char::is_whitespace) {
            out.push(' ');
        }
        out.push_str(&unescape(word));
    }
    if text.ends_with(char::is_whitespace) && !out.is_empty() && !out.ends_with(char::is_whitespace)
    {
        out.push(' ');
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let entity = after.split_once(';').filter(|(name, _)| name.len() <= 8);
        match entity.and_then(|(name, more)| Some((letter(name)?, more))) {
            Some((letter, more)) => {
                out.push(letter);
                rest = more;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn letter(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        "ndash" => Some('–'),
        "mdash" => Some('—'),
        "hellip" => Some('…'),
        "copy" => Some('©'),
        name => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn a_page_becomes_its_text() {
        let html = "<html><head><title>x</title></head><body><!-- no > this -->\n<h1>Hi &amp; \
                    bye</h1><p>One <b>bold</b>  word&#33;</p><script>if (a<b) {}</SCRIPT>\
                    <ul><li>a<li>b</ul></body></html>";
        assert_eq!(text(html), "Hi & bye\nOne bold word!\na\nb");
    }

    #[test]
    fn what_is_broken_is_no_error() {
        for html in [
            "<",
            "a < b",
            "&;&x",
            "<script>",
            "<!--",
            "<p",
            "ü<b>ü</b>",
            "<svg>ü</svg",
            "",
        ] {
            assert!(text(html).len() <= html.len());
        }
    }
}
