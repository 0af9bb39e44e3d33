use super::*;
use crate::record::{Config, Layer};

fn digest(digit: char) -> Digest {
    format!("sha256:{}", String::from(digit).repeat(64))
        .parse()
        .unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path());
    store.prepare().unwrap();
    (folder, store)
}

fn add(store: &Store, diff_id: &Digest) {
    let work = store.work().unwrap();
    let file = work.path().join("layer");
    fs::write(&file, vec![1; 5000]).unwrap();
    let _lock = store.lock_layer(diff_id).unwrap();
    store.add_layer(&file, diff_id, false).unwrap();
}

fn image(id: char, layers: &[char]) -> Image {
    let layers = layers.iter().map(|digit| Layer {
        diff_id: digest(*digit),
        size: 1,
        opaque: false,
    });
    Image {
        id: digest(id),
        manifest: None,
        platform: "linux/amd64".to_owned(),
        created: None,
        layers: layers.collect(),
        config: Config::default(),
    }
}

fn name(name: &str, image: char) -> Name {
    Name {
        name: name.to_owned(),
        image: digest(image),
        pulled_us: 7,
    }
}

#[test]
fn an_image_appears_only_with_all_its_layers() {
    let (_folder, store) = store();
    let wanted = image('a', &['1', '2']);
    add(&store, &digest('1'));
    let error = store.publish(&wanted, None).unwrap_err();
    assert!(
        matches!(&error, StoreError::LayerGone(gone) if *gone == digest('2')),
        "{error}"
    );
    assert!(store.images().unwrap().is_empty());
    add(&store, &digest('2'));
    store
        .publish(&wanted, Some(&name("docker.io/library/x:1", 'a')))
        .unwrap();
    assert_eq!(store.image(&digest('a')).unwrap(), Some(wanted));
    assert_eq!(
        store.name("docker.io/library/x:1").unwrap().unwrap().image,
        digest('a')
    );
    assert_eq!(store.name("docker.io/library/x:2").unwrap(), None);
}

#[test]
fn what_is_wanted_or_shared_stays() {
    let (_folder, store) = store();
    for layer in ['1', '2', '3', '4'] {
        add(&store, &digest(layer));
    }
    store
        .publish(&image('a', &['1', '2']), Some(&name("x", 'a')))
        .unwrap();
    store.publish(&image('b', &['1', '3']), None).unwrap();
    let unnamed = store.prunable(&BTreeSet::new(), false).unwrap();
    assert_eq!(unnamed.images, [digest('b')]);
    assert_eq!(unnamed.layers, [digest('3'), digest('4')]);
    assert!(unnamed.size >= 10_000);
    let wanted = BTreeSet::from([digest('b').to_string()]);
    let gone = store.prune(&wanted, true).unwrap();
    assert_eq!(gone.layers, [digest('2'), digest('4')]);
    assert!(store.names().unwrap().is_empty());
    assert!(store.layer(&digest('1')).exists() && store.layer(&digest('3')).exists());
    store.remove_image(&digest('b')).unwrap();
    assert!(store.images().unwrap().is_empty());
    assert_eq!(fs::read_dir(store.layers()).unwrap().count(), 0);
}

#[test]
fn what_a_crash_left_is_swept_and_what_is_under_way_is_not() {
    let (folder, store) = store();
    let work = store.work().unwrap();
    let left = folder.path().join(WORK).join("pull-old");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("lock"), "").unwrap();
    fs::write(left.join("layer"), "half").unwrap();
    drop(store.lock_layer(&digest('1')).unwrap());
    let _held = store.lock_layer(&digest('2')).unwrap();
    store.sweep().unwrap();
    assert!(!left.exists() && work.path().exists());
    let found = fs::read_dir(folder.path().join(WORK)).unwrap();
    assert_eq!(
        found.count(),
        2,
        "the pull and the lock of the second layer"
    );
    let path = work.path().to_owned();
    drop(work);
    assert!(!path.exists());
}

#[test]
fn a_pull_is_waited_for_until_its_last_mark_is_gone() {
    let (_folder, store) = store();
    let mark = store.mark_pull().unwrap();
    let (passed, other) = (mark.try_clone().unwrap(), store.mark_pull().unwrap());
    drop(mark);
    let (waiting, (sender, receiver)) = (store.clone(), std::sync::mpsc::channel());
    std::thread::spawn(move || sender.send(waiting.wait_for_pulls().unwrap()));
    drop(other);
    let soon = std::time::Duration::from_millis(50);
    assert!(receiver.recv_timeout(soon).is_err());
    drop(passed);
    assert!(receiver.recv().unwrap());
    assert!(!store.wait_for_pulls().unwrap());
}

#[test]
fn a_record_that_cannot_be_read_hides_no_other() {
    let (folder, store) = store();
    add(&store, &digest('1'));
    store.publish(&image('a', &['1']), None).unwrap();
    fs::write(folder.path().join("images/broken.json"), "{").unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
}

#[test]
fn one_makes_a_layer_at_a_time() {
    let (_folder, store) = store();
    let lock = store.lock_layer(&digest('1')).unwrap();
    let other = store.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let _lock = other.lock_layer(&digest('1')).unwrap();
        sender.send(()).unwrap();
    });
    let soon = std::time::Duration::from_millis(50);
    assert!(receiver.recv_timeout(soon).is_err());
    drop(lock);
    receiver.recv().unwrap();
    waiting.join().unwrap();
}
