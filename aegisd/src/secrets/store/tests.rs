use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::secrets::testing::TestSealer;

struct Folder {
    root: tempfile::TempDir,
    sealer: TestSealer,
}

impl Folder {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            sealer: TestSealer::default(),
        }
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("secrets.key")
    }

    fn sealing(&self) -> KeyStore {
        KeyStore::new(self.path(), Some(Box::new(self.sealer.clone())))
    }

    fn clear(&self) -> KeyStore {
        KeyStore::new(self.path(), None)
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_key_is_made_once_and_private() {
    for store in [Folder::sealing, Folder::clear] {
        let folder = Folder::new();
        let keys = store(&folder);
        let none = KeyId::from_bytes([0; 8]);
        assert!(keys.find(none).await.unwrap().is_none());
        let key = keys.current().await.unwrap();
        assert_eq!(keys.current().await.unwrap().id(), key.id());
        // Another aegisd reads the file.
        let found = store(&folder).find(key.id()).await.unwrap().unwrap();
        assert_eq!(found.bytes(), key.bytes());
        assert!(keys.find(none).await.unwrap().is_none());
        let mode = fs::metadata(folder.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(folder.files(), ["secrets.key"]);
    }
}

#[tokio::test]
async fn a_sealed_key_is_not_in_its_file() {
    let folder = Folder::new();
    let key = folder.sealing().current().await.unwrap();
    let file = fs::read(folder.path()).unwrap();
    assert!(!file.windows(8).any(|bytes| bytes == &key.bytes()[..8]));
    let look = folder.sealing().look().await.unwrap().unwrap();
    let sealed = look.sealed.map(|(name, _)| name);
    assert_eq!((look.id, sealed.as_deref()), (key.id(), Some("test")));
}

#[tokio::test]
async fn a_key_that_others_can_read_or_that_is_none_is_refused() {
    let folder = Folder::new();
    let keys = folder.clear();
    keys.current().await.unwrap();
    let protect = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode));
    protect(0o640).unwrap();
    assert!(matches!(keys.current().await, Err(KeyError::Exposed(_))));
    protect(0o600).unwrap();
    fs::write(folder.path(), "short").unwrap();
    assert!(matches!(keys.current().await, Err(KeyError::Form(_))));
    assert_eq!(fs::read(folder.path()).unwrap(), b"short");
}

#[tokio::test]
async fn a_key_in_clear_is_used_as_it_is_and_sealed_by_the_next_one() {
    let folder = Folder::new();
    let old = folder.clear().current().await.unwrap();
    let keys = folder.sealing();
    assert_eq!(keys.current().await.unwrap().id(), old.id());
    assert!(keys.look().await.unwrap().unwrap().sealed.is_none());
    let next = keys.make_next().await.unwrap();
    assert_eq!(keys.unsettled().await.unwrap(), Some(next.id()));
    keys.promote_next(&[next.id()].into()).await.unwrap();
    assert_eq!(keys.current().await.unwrap().id(), next.id());
    assert!(keys.look().await.unwrap().unwrap().sealed.is_some());
    assert!(keys.find(old.id()).await.unwrap().is_none());
    assert_eq!(folder.files(), ["secrets.key"]);
}

#[tokio::test]
async fn a_lost_key_is_put_aside_and_counts_again_when_it_opens() {
    let folder = Folder::new();
    let old = folder.sealing().current().await.unwrap();
    folder.sealer.change_host();
    let keys = folder.sealing();
    assert!(matches!(
        keys.find(old.id()).await,
        Err(KeyError::Shut { .. })
    ));
    assert!(keys.look().await.unwrap().unwrap().shut.is_some());
    let new = keys.current().await.unwrap();
    assert_ne!(new.id(), old.id());
    let aside = format!("secrets.{}.key", old.id());
    assert_eq!(folder.files(), [aside.as_str(), "secrets.key"]);
    folder.sealer.change_host_back();
    let found = folder.sealing().find(old.id()).await.unwrap().unwrap();
    assert_eq!(found.bytes(), old.bytes());
    keys.drop_unused(&[old.id()].into()).await.unwrap();
    assert_eq!(folder.files().len(), 2);
    keys.drop_unused(&BTreeSet::new()).await.unwrap();
    assert_eq!(folder.files(), ["secrets.key"]);
}

#[tokio::test]
async fn a_sealer_that_does_not_work_loses_nothing() {
    let folder = Folder::new();
    let old = folder.sealing().current().await.unwrap();
    folder.sealer.stop();
    let keys = folder.sealing();
    assert!(matches!(keys.current().await, Err(KeyError::Shut { .. })));
    assert!(matches!(keys.make_next().await, Err(KeyError::Seal(_))));
    // Nor does one that is not there any more.
    assert!(matches!(
        folder.clear().current().await,
        Err(KeyError::Shut { .. })
    ));
    assert_eq!(folder.files(), ["secrets.key"]);
    folder.sealer.start();
    assert_eq!(keys.current().await.unwrap().id(), old.id());
}

#[tokio::test]
async fn what_was_interrupted_is_told_and_removed() {
    let folder = Folder::new();
    let keys = folder.sealing();
    let key = keys.current().await.unwrap();
    keys.make_next().await.unwrap();
    fs::write(folder.root.path().join("secrets.new"), "").unwrap();
    keys.drop_unwritten().await.unwrap();
    keys.drop_next().await.unwrap();
    assert_eq!(folder.files(), ["secrets.key"]);
    assert_eq!(keys.unsettled().await.unwrap(), None);
    assert_eq!(keys.current().await.unwrap().id(), key.id());
}

#[tokio::test]
async fn a_key_that_a_value_needs_outlives_its_successor() {
    let folder = Folder::new();
    let keys = folder.sealing();
    let old = keys.current().await.unwrap();
    let next = keys.make_next().await.unwrap();
    let used = [old.id(), next.id()].into();
    keys.promote_next(&used).await.unwrap();
    assert!(keys.find(old.id()).await.unwrap().is_some());
    assert_eq!(keys.current().await.unwrap().id(), next.id());
}
