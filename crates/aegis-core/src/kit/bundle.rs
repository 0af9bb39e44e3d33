//! A kit as a folder: one manifest and the programs it names, in the folder or in
//! its `bin`. Pure: the folder's content is an argument.

use super::Manifest;

/// Why a folder is not a kit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("there is no manifest (NAME.json) in the folder")]
    NoManifest,
    #[error("there are several manifests in the folder: {}", .0.join(", "))]
    Several(Vec<String>),
    #[error("there is no manifest {0}.json in the folder")]
    Unnamed(String),
}

/// The kit's name, from the names of the files in its folder and the name that was
/// asked for, if any.
///
/// # Errors
/// There is no manifest, or it is not clear which.
pub fn kit_name<'a>(
    files: impl IntoIterator<Item = &'a str>,
    wanted: Option<&str>,
) -> Result<&'a str, BundleError> {
    let mut names: Vec<&str> = files
        .into_iter()
        .filter_map(|file| file.strip_suffix(".json"))
        .filter(|name| super::is_kit_name(name))
        .collect();
    names.sort_unstable();
    if let Some(wanted) = wanted {
        let found = names.iter().find(|name| **name == wanted);
        return found
            .copied()
            .ok_or_else(|| BundleError::Unnamed(wanted.to_owned()));
    }
    match names.as_slice() {
        [] => Err(BundleError::NoManifest),
        [name] => Ok(name),
        _ => Err(BundleError::Several(
            names.iter().map(|name| format!("{name}.json")).collect(),
        )),
    }
}

/// Where in its folder a kit's program may be, the winning place first.
pub fn places(program: &str) -> [String; 2] {
    [program.to_owned(), format!("bin/{program}")]
}

/// The programs that the folder does not have, by a test of what is one.
pub fn missing(manifest: &Manifest, is_program: impl Fn(&str) -> bool) -> Vec<String> {
    let here = |program: &&str| places(program).iter().any(|place| is_program(place));
    let programs = manifest.programs().into_iter();
    programs
        .filter(|program| !here(program))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_manifest_names_the_kit() {
        let name = |files: &[&'static str], wanted| kit_name(files.iter().copied(), wanted);
        assert_eq!(name(&["README", "echo.json", "echo"], None), Ok("echo"));
        assert_eq!(
            name(&[".x.json", "echo"], None),
            Err(BundleError::NoManifest)
        );
        assert_eq!(name(&["b.json", "a.json"], Some("b")), Ok("b"));
        assert_eq!(
            name(&["a.json"], Some("b")),
            Err(BundleError::Unnamed("b".into()))
        );
        let several = BundleError::Several(vec!["a.json".into(), "b.json".into()]);
        assert_eq!(name(&["b.json", "a.json"], None), Err(several));
    }

    #[test]
    fn programs_lie_in_the_folder_or_its_bin() {
        let text = r#"{"instance_daemons":[{"binary":"a"},{"binary":"b"},{"binary":"c"}]}"#;
        let manifest = Manifest::parse(text).unwrap().manifest;
        let missing = missing(&manifest, |path| ["a", "bin/b"].contains(&path));
        assert_eq!(missing, ["c"]);
    }
}
