//! What an instance keeps of its image: a tag may mean another one tomorrow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The image an instance was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedImage {
    /// The digest of its configuration.
    pub id: String,
    /// The digests of its layers' contents, the lowest first.
    pub layers: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub entrypoint: Vec<String>,
    #[serde(default)]
    pub cmd: Vec<String>,
    #[serde(default)]
    pub workdir: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    /// The signal that asks the command to end; `None` means SIGTERM.
    #[serde(default)]
    pub stop_signal: Option<i32>,
}

impl PinnedImage {
    /// The command of an instance, as docker-run(1) puts it together: the entry point,
    /// then the words the user gave, else the image's own. An entry point of the user's
    /// does without those of the image.
    pub fn command(&self, entrypoint: Option<&[String]>, words: &[String]) -> Vec<String> {
        let own = if words.is_empty() && entrypoint.is_none() {
            &self.cmd
        } else {
            words
        };
        let entrypoint = entrypoint.unwrap_or(&self.entrypoint);
        entrypoint.iter().chain(own).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_command_is_put_together_as_docker_does() {
        let image = PinnedImage {
            entrypoint: words("/entry -x"),
            cmd: words("serve all"),
            ..PinnedImage::default()
        };
        assert_eq!(image.command(None, &[]), words("/entry -x serve all"));
        assert_eq!(image.command(None, &words("sh")), words("/entry -x sh"));
        let own = words("python3");
        assert_eq!(image.command(Some(&own), &[]), own);
        assert_eq!(image.command(Some(&own), &words("-V")), words("python3 -V"));
        assert_eq!(image.command(Some(&[]), &words("ls")), words("ls"));
    }
}
