//! An answer of the agent as steps, each one message of a chat. Pure, and the same for the
//! same frame, so that a number of steps says what is left after a restart.

use super::markdown;
use super::rich::{CAPTION, MESSAGE, Part, units};
use crate::frame::Image;

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Text(Part),
    Image { image: Image, caption: Option<Part> },
}

/// The steps of an answer. A single image of a short text has it as its caption, unless a
/// message with the text is there already, `streamed`.
pub fn steps(text: &str, images: &[Image], streamed: bool) -> Vec<Step> {
    let rich = markdown::read(text);
    if let [image] = images
        && !streamed
        && units(&rich.text) <= CAPTION
    {
        let caption = rich.parts(CAPTION).into_iter().next();
        let image = image.clone();
        return vec![Step::Image { image, caption }];
    }
    let texts = rich.parts(MESSAGE).into_iter().map(Step::Text);
    let images = images.iter().map(|image| Step::Image {
        image: image.clone(),
        caption: None,
    });
    texts.chain(images).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image {
            blob: format!("{}.png", "a".repeat(64)),
        }
    }

    #[test]
    fn a_short_text_is_the_caption_of_its_image() {
        let caption = Part {
            html: "<b>hi</b>".into(),
            plain: "hi".into(),
        };
        let expected = Step::Image {
            image: image(),
            caption: Some(caption.clone()),
        };
        assert_eq!(steps("**hi**", &[image()], false), [expected]);
        let bare = Step::Image {
            image: image(),
            caption: None,
        };
        assert_eq!(steps("", &[image()], false), std::slice::from_ref(&bare));
        assert_eq!(
            steps("**hi**", &[image()], true),
            [Step::Text(caption), bare]
        );
    }

    #[test]
    fn a_caption_has_at_most_1024_units_and_longer_texts_are_apart() {
        // Each of these has two units and four bytes.
        let fits = "😀".repeat(512);
        assert_eq!(steps(&fits, &[image()], false).len(), 1);
        let longer = "😀".repeat(513);
        let apart = steps(&longer, &[image()], false);
        assert!(matches!(&apart[0], Step::Text(part) if part.plain == longer));
        assert!(matches!(&apart[1], Step::Image { caption: None, .. }));
    }

    #[test]
    fn a_long_answer_has_several_steps_and_an_empty_one_none() {
        let long = "word ".repeat(2000);
        assert_eq!(steps(&long, &[], false).len(), 3);
        assert_eq!(steps(" \n", &[], false), []);
    }
}
