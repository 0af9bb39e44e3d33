//! Text with marks: what a message says and how its parts look, apart from any syntax.
//! Pure. Parts of it fit into messages, and become Telegram's HTML
//! (<https://core.telegram.org/bots/api#html-style>).

use std::ops::Range;

/// Longest text of a message, in UTF-16 code units without marks.
pub const MESSAGE: usize = 4096;
/// Longest caption of a photo or file, likewise.
pub const CAPTION: usize = 1024;

/// How a part of a text looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    Bold,
    Italic,
    Strike,
    Code,
    /// A block of code, in a language.
    Pre(Option<String>),
    Link(String),
    Quote,
}

/// A range of bytes that looks so. Two marks lie beside each other or one in the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub range: Range<usize>,
    pub look: Look,
}

/// A text and its marks, in the order they begin, outer ones first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rich {
    pub text: String,
    pub marks: Vec<Mark>,
}

/// A message's text, as HTML and without marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub html: String,
    pub plain: String,
}

/// The length that Telegram counts.
pub fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// What of a text has at most so many units, cut between two characters.
pub fn head(text: &str, most: usize) -> &str {
    &text[..reach(text, 0, most)]
}

impl Rich {
    /// A text without marks.
    pub fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            marks: Vec::new(),
        }
    }

    /// The text in parts of at most `most` units, none of them blank.
    pub fn parts(&self, most: usize) -> Vec<Part> {
        let ranges = self.ranges(most).into_iter();
        ranges
            .map(|range| Part {
                html: self.html(range.clone()),
                plain: self.text[range].to_owned(),
            })
            .collect()
    }

    fn ranges(&self, most: usize) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut start = self.past_blank(0);
        while start < self.text.len() {
            let reach = reach(&self.text, start, most);
            let end = match reach == self.text.len() {
                true => reach,
                false => self.border(start, reach),
            };
            let kept = start + self.text[start..end].trim_end().len();
            if kept > start {
                ranges.push(start..kept);
            }
            start = self.past_blank(end);
        }
        ranges
    }

    /// The best place for a cut in `start..=reach`: between paragraphs, else lines, else
    /// words; outside of marks where there is such a place. Early places make small
    /// messages, so only the last three quarters count.
    fn border(&self, start: usize, reach: usize) -> usize {
        let earliest = start + (reach - start) / 4;
        let text = &self.text[start..reach];
        let after = |pattern: &'static str| {
            text.rmatch_indices(pattern)
                .map(move |(at, found)| start + at + found.len())
                .filter(move |at| *at > earliest)
        };
        let unmarked = |at: &usize| !self.marks.iter().any(|mark| cuts(mark, *at));
        let outside_blocks = |at: &usize| {
            let blocks = self
                .marks
                .iter()
                .filter(|mark| matches!(mark.look, Look::Pre(_)));
            !blocks.into_iter().any(|mark| cuts(mark, *at))
        };
        let lines = |at: &usize| unmarked(at) || self.text[..*at].ends_with('\n');
        after("\n\n")
            .find(unmarked)
            .or_else(|| after("\n").find(unmarked))
            // The border of a block is one of lines, though the line's end lies inside.
            .or_else(|| self.block_border(earliest, reach))
            .or_else(|| after(" ").find(unmarked))
            .or_else(|| after("\n").find(outside_blocks))
            .or_else(|| after("\n").find(lines))
            .or_else(|| after(" ").find(outside_blocks))
            .or_else(|| after(" ").next())
            .unwrap_or(reach)
    }

    fn block_border(&self, earliest: usize, reach: usize) -> Option<usize> {
        let blocks = self
            .marks
            .iter()
            .filter(|mark| matches!(mark.look, Look::Pre(_)));
        let starts = blocks.map(|mark| mark.range.start);
        starts.filter(|at| *at > earliest && *at <= reach).max()
    }

    /// The first place from `at` on that is worth beginning a message with: blank lines are
    /// left out, the indentation of code is kept.
    fn past_blank(&self, at: usize) -> usize {
        let rest = &self.text[at..];
        let word = rest.len() - rest.trim_start().len();
        let in_block = self
            .marks
            .iter()
            .any(|mark| matches!(mark.look, Look::Pre(_)) && mark.range.contains(&(at + word)));
        match in_block {
            true => at + rest[..word].rfind('\n').map_or(0, |end| end + 1),
            false => at + word,
        }
    }

    fn html(&self, range: Range<usize>) -> String {
        let mut html = String::new();
        // The marks that are open, innermost last.
        let mut open: Vec<&Mark> = Vec::new();
        let mut at = range.start;
        let inside =
            |mark: &&Mark| mark.range.start.max(range.start) < mark.range.end.min(range.end);
        for mark in self.marks.iter().filter(inside) {
            let start = mark.range.start.max(range.start);
            while let Some(last) = open.last().filter(|last| last.range.end <= start) {
                escape(&self.text[at..last.range.end], &mut html);
                at = last.range.end;
                html.push_str(closing(&last.look));
                open.pop();
            }
            // Code has no marks inside, and quotes no quotes.
            let hidden = open.iter().any(|outer| !may_hold(&outer.look, &mark.look));
            if hidden {
                continue;
            }
            escape(&self.text[at..start], &mut html);
            at = start;
            opening(&mark.look, &mut html);
            open.push(mark);
        }
        while let Some(last) = open.pop() {
            let end = last.range.end.min(range.end);
            escape(&self.text[at..end], &mut html);
            at = end;
            html.push_str(closing(&last.look));
        }
        escape(&self.text[at..range.end], &mut html);
        html
    }
}

/// The end of the longest text from `start` on of at most `most` units.
fn reach(text: &str, start: usize, most: usize) -> usize {
    let mut used = 0;
    for (at, character) in text[start..].char_indices() {
        used += character.len_utf16();
        if used > most {
            return start + at;
        }
    }
    text.len()
}

fn cuts(mark: &Mark, at: usize) -> bool {
    mark.range.start < at && at < mark.range.end
}

fn may_hold(outer: &Look, inner: &Look) -> bool {
    match outer {
        Look::Code | Look::Pre(_) => false,
        Look::Quote => !matches!(inner, Look::Quote),
        Look::Link(_) => matches!(inner, Look::Bold | Look::Italic | Look::Strike),
        Look::Bold | Look::Italic | Look::Strike => {
            !matches!(inner, Look::Code | Look::Pre(_) | Look::Quote) && inner != outer
        }
    }
}

fn opening(look: &Look, html: &mut String) {
    match look {
        Look::Bold => html.push_str("<b>"),
        Look::Italic => html.push_str("<i>"),
        Look::Strike => html.push_str("<s>"),
        Look::Code => html.push_str("<code>"),
        Look::Quote => html.push_str("<blockquote>"),
        Look::Pre(None) => html.push_str("<pre>"),
        Look::Pre(Some(language)) => {
            html.push_str("<pre><code class=\"language-");
            escape(language, html);
            html.push_str("\">");
        }
        Look::Link(address) => {
            html.push_str("<a href=\"");
            escape(address, html);
            html.push_str("\">");
        }
    }
}

fn closing(look: &Look) -> &'static str {
    match look {
        Look::Bold => "</b>",
        Look::Italic => "</i>",
        Look::Strike => "</s>",
        Look::Code => "</code>",
        Look::Quote => "</blockquote>",
        Look::Pre(None) => "</pre>",
        Look::Pre(Some(_)) => "</code></pre>",
        Look::Link(_) => "</a>",
    }
}

/// Text as HTML. These four names are all that Telegram knows.
pub fn escape(text: &str, html: &mut String) {
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            other => html.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(range: Range<usize>, look: Look) -> Mark {
        Mark { range, look }
    }

    #[test]
    fn lengths_are_those_of_utf_16() {
        assert_eq!(units("aä€"), 3);
        assert_eq!(units("😀"), 2);
        assert_eq!(head("a😀b", 2), "a");
        assert_eq!(head("a😀b", 3), "a😀");
        assert_eq!(head("ab", 9), "ab");
    }

    #[test]
    fn marks_are_nested_tags_and_text_is_escaped() {
        let rich = Rich {
            text: "a <b> & c".to_owned(),
            marks: vec![
                mark(0..9, Look::Bold),
                mark(2..5, Look::Italic),
                mark(6..7, Look::Link("http://x/?a=1&b=\"".to_owned())),
            ],
        };
        let html = "<b>a <i>&lt;b&gt;</i> <a href=\"http://x/?a=1&amp;b=&quot;\">&amp;</a> c</b>";
        assert_eq!(
            rich.parts(MESSAGE),
            [Part {
                html: html.into(),
                plain: "a <b> & c".into()
            }]
        );
    }

    #[test]
    fn marks_that_telegram_does_not_nest_are_left_out() {
        let rich = Rich {
            text: "abc".to_owned(),
            marks: vec![mark(0..3, Look::Pre(None)), mark(1..2, Look::Bold)],
        };
        assert_eq!(rich.parts(9)[0].html, "<pre>abc</pre>");
    }

    #[test]
    fn long_texts_are_cut_between_paragraphs_then_lines_then_words() {
        let plain = |text: &str, most| {
            let parts = Rich::plain(text).parts(most).into_iter();
            parts.map(|part| part.plain).collect::<Vec<_>>()
        };
        assert_eq!(
            plain("one two\n\nthree four", 12),
            ["one two", "three four"]
        );
        assert_eq!(plain("one two\nthree four", 12), ["one two", "three four"]);
        assert_eq!(plain("one two three", 9), ["one two", "three"]);
        assert_eq!(plain("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(plain("😀😀😀", 3), ["😀", "😀", "😀"]);
        assert_eq!(plain(" \n ", 3), Vec::<String>::new());
    }

    #[test]
    fn a_block_of_code_that_fits_into_a_message_is_not_cut() {
        let code = "x = 1\ny = 2\nz = 3\n";
        let text = format!("some words first\n{code}");
        let start = text.len() - code.len();
        let rich = Rich {
            marks: vec![mark(start..text.len(), Look::Pre(None))],
            text,
        };
        let parts = rich.parts(25);
        assert_eq!(parts[0].html, "some words first");
        assert_eq!(parts[1].html, "<pre>x = 1\ny = 2\nz = 3</pre>");
        // One that fits into none is cut between its lines, and each part is a block.
        let parts = rich.parts(12);
        let last: Vec<_> = parts
            .iter()
            .skip(2)
            .map(|part| part.html.as_str())
            .collect();
        assert_eq!(last, ["<pre>x = 1\ny = 2</pre>", "<pre>z = 3</pre>"]);
    }

    proptest! {
        #[test]
        fn no_part_is_too_long_and_no_word_is_lost(
            text in "[a-c \n😀é]{0,80}",
            cuts in proptest::collection::vec((0_usize..80, 0_usize..20), 0..4),
            most in 2_usize..30,
        ) {
            let border = |at: usize| {
                let mut at = at.min(text.len());
                while !text.is_char_boundary(at) { at -= 1; }
                at
            };
            let mut marks = Vec::new();
            let mut end = 0;
            for (start, length) in cuts {
                let (from, to) = (border(end + start % 10), border(end + start % 10 + length));
                if from < to {
                    marks.push(mark(from..to, if length % 2 == 0 { Look::Bold } else { Look::Pre(None) }));
                    end = to;
                }
            }
            let rich = Rich { text: text.clone(), marks };
            let parts = rich.parts(most);
            let mut kept = String::new();
            for part in &parts {
                prop_assert!(units(&part.plain) <= most);
                prop_assert!(!part.plain.trim().is_empty());
                prop_assert_eq!(part.html.matches("<b>").count(), part.html.matches("</b>").count());
                let bare = part.html.replace("<b>", "").replace("</b>", "");
                prop_assert_eq!(bare.replace("<pre>", "").replace("</pre>", ""), part.plain.clone());
                kept.push_str(&part.plain);
            }
            let words = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(words(&kept), words(&text));
        }
    }
}
