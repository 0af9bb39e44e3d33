//! CommonMark, with tables, strikethrough and task lists, as text with marks. Pure.
//!
//! | Markdown | in Telegram |
//! |---|---|
//! | heading | a bold line |
//! | list | lines with `•`, numbers, or boxes, indented by depth |
//! | table | a block of code with aligned columns |
//! | image | a link |
//! | rule | a line |
//! | HTML | as it was written |

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::rich::{Look, Mark, Rich};

/// Each level of a list is indented by so many spaces.
const INDENT: usize = 2;

/// Reads Markdown. There is no wrong Markdown.
pub fn read(markdown: &str) -> Rich {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::default();
    for event in Parser::new_ext(markdown, options) {
        writer.event(event);
    }
    writer.finish()
}

#[derive(Default)]
struct Writer {
    rich: Rich,
    /// Marks that are open: their places in `rich.marks`.
    open: Vec<usize>,
    /// The number of the next item of each list that is open; `None` where it has bullets.
    lists: Vec<Option<u64>>,
    table: Option<Table>,
    /// The text of a block must begin on a line of its own, after so many line ends.
    gap: usize,
    /// An item has begun and has its bullet: its first paragraph is on the same line.
    in_bullet: bool,
}

#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::Code(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                if self.table.is_some() {
                    self.text(&text);
                } else {
                    self.begin(Look::Code);
                    self.text(&text);
                    self.finish_mark();
                }
            }
            Event::SoftBreak | Event::HardBreak => match self.table.is_some() {
                true => self.text(" "),
                false => self.text("\n"),
            },
            Event::Rule => {
                self.block(2);
                self.text("———");
                self.block(2);
            }
            Event::TaskListMarker(done) => self.text(if done { "☑ " } else { "☐ " }),
            Event::FootnoteReference(name) => self.text(&name),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.block(if self.lists.is_empty() { 2 } else { 1 }),
            Tag::Heading { .. } => {
                self.block(2);
                self.begin(Look::Bold);
            }
            Tag::BlockQuote(_) => {
                self.block(2);
                self.begin(Look::Quote);
            }
            Tag::CodeBlock(kind) => {
                self.block(2);
                self.begin(Look::Pre(match kind {
                    CodeBlockKind::Fenced(info) => language(&info),
                    CodeBlockKind::Indented => None,
                }));
            }
            Tag::List(first) => {
                self.block(if self.lists.is_empty() { 2 } else { 1 });
                self.lists.push(first);
            }
            Tag::Item => {
                self.block(1);
                self.item();
            }
            Tag::Emphasis => self.begin(Look::Italic),
            Tag::Strong => self.begin(Look::Bold),
            Tag::Strikethrough => self.begin(Look::Strike),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => self.link(&dest_url),
            Tag::Table(_) => {
                self.block(2);
                self.table = Some(Table::default());
            }
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.rows.push(Vec::new());
                }
            }
            Tag::TableCell => {
                if let Some(row) = self.table.as_mut().and_then(|table| table.rows.last_mut()) {
                    row.push(String::new());
                }
            }
            Tag::HtmlBlock => self.block(2),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.block(if self.lists.is_empty() { 2 } else { 1 }),
            TagEnd::Heading(_) | TagEnd::BlockQuote(_) | TagEnd::CodeBlock => {
                self.finish_mark();
                self.block(2);
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.block(if self.lists.is_empty() { 2 } else { 1 });
            }
            TagEnd::Item | TagEnd::HtmlBlock => {
                self.in_bullet = false;
                self.block(1);
            }
            TagEnd::Emphasis
            | TagEnd::Strong
            | TagEnd::Strikethrough
            | TagEnd::Link
            | TagEnd::Image => self.finish_mark(),
            TagEnd::Table => self.finish_table(),
            _ => {}
        }
    }

    fn item(&mut self) {
        let depth = self.lists.len().saturating_sub(1);
        let bullet = match self.lists.last_mut() {
            Some(Some(number)) => {
                let text = format!("{number}. ");
                *number += 1;
                text
            }
            _ => "• ".to_owned(),
        };
        self.text(&" ".repeat(depth * INDENT));
        self.text(&bullet);
        self.in_bullet = true;
    }

    fn link(&mut self, address: &str) {
        let scheme = address
            .split_once(':')
            .map(|(scheme, _)| scheme.to_ascii_lowercase());
        let known = matches!(scheme.as_deref(), Some("http" | "https" | "tg" | "mailto"));
        // What Telegram would not open stays as text; an empty mark keeps the order.
        let look = match known && self.table.is_none() {
            true => Look::Link(address.to_owned()),
            false => Look::Italic,
        };
        self.begin(look);
    }

    /// What follows is a block of its own.
    fn block(&mut self, lines: usize) {
        if !self.rich.text.is_empty() && !self.in_bullet {
            self.gap = self.gap.max(lines);
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(cell) = self
            .table
            .as_mut()
            .and_then(|table| table.rows.last_mut())
            .and_then(|row| row.last_mut())
        {
            cell.push_str(text);
            return;
        }
        if text.is_empty() {
            return;
        }
        self.close_gap();
        self.in_bullet = false;
        self.rich.text.push_str(text);
    }

    fn close_gap(&mut self) {
        let ends = self.rich.text.len() - self.rich.text.trim_end_matches('\n').len();
        let gap = std::mem::take(&mut self.gap);
        self.rich
            .text
            .push_str(&"\n".repeat(gap.saturating_sub(ends)));
    }

    fn begin(&mut self, look: Look) {
        if self.table.is_none() {
            self.close_gap();
        }
        let at = self.rich.text.len();
        self.open.push(self.rich.marks.len());
        self.rich.marks.push(Mark {
            range: at..at,
            look,
        });
    }

    fn finish_mark(&mut self) {
        let Some(mark) = self.open.pop() else { return };
        let mark = &mut self.rich.marks[mark];
        mark.range.end = self.rich.text.len();
        // The line end of a block of code is no part of it.
        if matches!(mark.look, Look::Pre(_) | Look::Quote) {
            let text = self.rich.text[mark.range.clone()].trim_end_matches('\n');
            mark.range.end = mark.range.start + text.len();
            self.rich.text.truncate(mark.range.end);
            for inner in &mut self.rich.marks {
                inner.range.end = inner.range.end.min(self.rich.text.len());
            }
        }
    }

    fn finish_table(&mut self) {
        let Some(table) = self.table.take() else {
            return;
        };
        self.begin(Look::Pre(None));
        let text = table.to_text();
        self.text(&text);
        self.finish_mark();
        self.block(2);
    }

    fn finish(mut self) -> Rich {
        while !self.open.is_empty() {
            self.finish_mark();
        }
        self.rich.marks.retain(|mark| !mark.range.is_empty());
        self.rich
    }
}

impl Table {
    fn to_text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.trim().chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut lines = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = widths.iter().enumerate().map(|(column, width)| {
                let cell = row.get(column).map_or("", |cell| cell.trim());
                format!("{cell:width$}")
            });
            lines.push(cells.collect::<Vec<_>>().join(" | ").trim_end().to_owned());
            if index == 0 {
                let rules = widths.iter().map(|width| "-".repeat(*width));
                lines.push(rules.collect::<Vec<_>>().join("-+-"));
            }
        }
        lines.join("\n")
    }
}

/// The language of a fenced block: the first word of its info string, if it can be one.
fn language(info: &str) -> Option<String> {
    let word = info.split(|c: char| c.is_whitespace() || c == ',').next()?;
    let good = !word.is_empty()
        && word.len() <= 32
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-#_.".contains(c));
    good.then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rich::{MESSAGE, units};
    use super::*;

    fn html(markdown: &str) -> String {
        let parts = read(markdown).parts(MESSAGE).into_iter();
        parts
            .map(|part| part.html)
            .collect::<Vec<_>>()
            .join("\n=====\n")
    }

    #[test]
    fn inline_marks_become_tags() {
        assert_eq!(
            html("a **b *c*** ~~d~~ `e<f`"),
            "a <b>b <i>c</i></b> <s>d</s> <code>e&lt;f</code>"
        );
        assert_eq!(
            html("[t](https://x.y/?a&b)"),
            "<a href=\"https://x.y/?a&amp;b\">t</a>"
        );
        assert_eq!(
            html("![pic](https://x.y/a.png)"),
            "<a href=\"https://x.y/a.png\">pic</a>"
        );
        assert_eq!(html("[t](javascript:alert(1))"), "<i>t</i>");
        assert_eq!(
            html("1 < 2 & <b>x</b>"),
            "1 &lt; 2 &amp; &lt;b&gt;x&lt;/b&gt;"
        );
        assert_eq!(
            html("2 * 3 * 4 and snake_case_name"),
            "2 * 3 * 4 and snake_case_name"
        );
    }

    #[test]
    fn blocks_are_apart() {
        assert_eq!(
            html("# Head\ntext\nmore\n\nnext"),
            "<b>Head</b>\n\ntext\nmore\n\nnext"
        );
        assert_eq!(
            html("> said\n> so\n\nafter"),
            "<blockquote>said\nso</blockquote>\n\nafter"
        );
        assert_eq!(html("a\n\n---\n\nb"), "a\n\n———\n\nb");
    }

    #[test]
    fn code_keeps_its_lines_and_language() {
        let code = "before\n```rust\nfn main() {\n    a & b;\n}\n```\nafter";
        let expected = "before\n\n<pre><code class=\"language-rust\">fn main() {\n    a &amp; b;\n}\
            </code></pre>\n\nafter";
        assert_eq!(html(code), expected);
        assert_eq!(html("```\nx\n```"), "<pre>x</pre>");
        assert_eq!(html("```\" onclick=\nx\n```"), "<pre>x</pre>");
    }

    #[test]
    fn lists_have_bullets_numbers_and_boxes() {
        assert_eq!(html("- a\n- b\n  - c\n- d"), "• a\n• b\n  • c\n• d");
        assert_eq!(html("3. a\n4. b\n\nend"), "3. a\n4. b\n\nend");
        assert_eq!(html("- [ ] a\n- [x] b"), "• ☐ a\n• ☑ b");
        assert_eq!(html("- a\n\n- b"), "• a\n• b");
    }

    #[test]
    fn tables_are_aligned_code() {
        let table = "| a | long |\n|---|---|\n| `x` | **y** |";
        assert_eq!(html(table), "<pre>a | long\n--+-----\nx | y</pre>");
    }

    proptest! {
        #[test]
        fn any_text_becomes_good_html(markdown in "[a-c *_`~#>|\\-\\[\\]()\n1.<&\"😀]{0,120}", most in 8_usize..60) {
            for part in read(&markdown).parts(most) {
                prop_assert!(units(&part.plain) <= most);
                let mut open = Vec::new();
                for tag in part.html.split('<').skip(1) {
                    let (tag, _) = tag.split_once('>').unwrap();
                    match tag.strip_prefix('/') {
                        Some(name) => prop_assert_eq!(open.pop(), Some(name.to_owned())),
                        None => open.push(tag.split(' ').next().unwrap().to_owned()),
                    }
                }
                prop_assert!(open.is_empty());
            }
        }
    }
}
