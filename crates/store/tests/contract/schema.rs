use warren_clock::Clock;
use warren_store::{JobFilter, Store, StoreError, StoreSettings, migrate};

use crate::world::World;

pub(crate) async fn migrations_go_up_down_and_up(world: World) {
    world.job_with_tasks(3, 1).await;
    world.store.close().await.unwrap();
    assert_eq!(migrate::up(&world.url).await.unwrap(), Vec::<String>::new());
    let known = migrate::status(&world.url).await.unwrap();
    assert!(known.iter().all(|revision| revision.applied));
    let down = migrate::down(&world.url, known.len() as u32).await.unwrap();
    assert_eq!(down.len(), known.len());
    assert!(migrate::status(&world.url).await.unwrap().iter().all(|revision| !revision.applied));
    assert_eq!(migrate::up(&world.url).await.unwrap().last(), Some(&migrate::newest()));
    let store = world.another().await;
    store.ping().await.unwrap();
    assert!(store.read().jobs(&JobFilter::default(), None, 1).await.unwrap().is_empty());
}

pub(crate) async fn an_unmigrated_database_is_refused(world: World) {
    world.store.close().await.unwrap();
    migrate::down(&world.url, 1).await.unwrap();
    let error = Store::open(&StoreSettings::at(&world.url), Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::Revision { .. }), "{error}");
    assert!(error.to_string().contains("run `warren migrate`"), "{error}");
}

#[tokio::test]
async fn a_missing_file_or_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("none.sqlite").display());
    let error = Store::open(&StoreSettings::at(&url), Clock::system()).await.unwrap_err();
    assert!(error.to_string().contains("run `warren migrate`"), "{error}");
    assert!(migrate::status(&url).await.unwrap().iter().all(|revision| !revision.applied));

    let url = format!("sqlite:{}", folder.path().join("no/such/folder/store.sqlite").display());
    for error in [
        Store::open(&StoreSettings::at(&url), Clock::system()).await.unwrap_err(),
        migrate::up(&url).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("no/such/folder does not exist"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_and_its_password_is_kept() {
    let port = warren_local::ports::free(1).unwrap()[0];
    let settings = StoreSettings::at(format!("postgres://warren:hunter2@127.0.0.1:{port}/none"));
    let error = Store::open(&settings, Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_is_unavailable() {
    use warren_local::postgres::{Cluster, Durability};
    let (cluster, url) = tokio::task::spawn_blocking(|| {
        let cluster = Cluster::start(Durability::Fast).unwrap();
        let url = cluster.create_database().unwrap();
        (cluster, url)
    })
    .await
    .unwrap();
    migrate::up(&url).await.unwrap();
    let store = Store::open(&StoreSettings::at(&url), Clock::system()).await.unwrap();
    let tx = store.begin().await.unwrap();
    tx.audit("a", "b", "c", "d").await.unwrap();
    tokio::task::spawn_blocking(move || drop(cluster)).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}
