//! Volumes as they are typed.

use std::path::Path;

use aegis_core::spec::SpecError;
use aegis_core::volume::{Volume, VolumeError, VolumeSource, split};

use crate::failure::Failure;

/// Volumes from their texts. In a source a text with a slash, `.` and `..` are paths,
/// seen from here; the rest are names.
pub(crate) fn parse_volumes(texts: &[String]) -> Result<Vec<Volume>, Failure> {
    texts.iter().map(|text| parse(text)).collect()
}

fn parse(text: &str) -> Result<Volume, Failure> {
    let (source, target, read_only) = split(text).map_err(refused)?;
    let source = if is_path(source) {
        let path = Path::new(source);
        let absolute = std::path::absolute(path).map_err(|source| Failure::Path {
            path: path.to_owned(),
            source,
        })?;
        let absolute = absolute.to_str().map(str::parse::<VolumeSource>);
        absolute.ok_or_else(|| Failure::PathText(path.to_owned()))?
    } else {
        source.parse()
    };
    Ok(Volume {
        source: source.map_err(refused)?,
        target,
        read_only,
    })
}

fn is_path(source: &str) -> bool {
    source.contains('/') || source == "." || source == ".."
}

fn refused(error: VolumeError) -> Failure {
    Failure::Spec(SpecError::Volume(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_makes_a_path_and_a_word_is_a_name() {
        let here = std::env::current_dir().unwrap();
        for (text, source) in [
            ("./x:/data:ro", VolumeSource::Path(here.join("x"))),
            ("x/y:/data", VolumeSource::Path(here.join("x/y"))),
            (".:/data", VolumeSource::Path(here.clone())),
            ("/srv:/data", VolumeSource::Path("/srv".into())),
            ("cache:/data", VolumeSource::Named("cache".into())),
        ] {
            assert_eq!(parse(text).unwrap().source, source, "{text}");
        }
        for text in ["/data", "a b:/data", "x:data", "x:/data:exec", "/:/host"] {
            assert!(matches!(parse(text), Err(Failure::Spec(_))), "{text}");
        }
    }
}
