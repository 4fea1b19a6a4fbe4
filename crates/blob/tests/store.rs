//! Against a real S3 server on loopback.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::{Stream, stream};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use uuid::Uuid;
use warren_blob::{BLOCK_BYTES, BlobError, BlobReader, BlobSettings, Blobs, Key, PART_BYTES, Prefix};
use warren_fault::{Code, Fault};
use warren_local::s3::TestS3;
use warren_settings::Secret;

const MEDIA: Uuid = Uuid::from_u128(0x0192_f0c1_7e9b_7c3a_8f00_1122_3344_5566);
const ANY: u64 = u64::MAX;

fn settings(s3: &TestS3) -> BlobSettings {
    BlobSettings {
        endpoint: s3.endpoint.clone(),
        region: s3.region.to_owned(),
        bucket: s3.bucket.clone(),
        access_key: s3.access_key.clone(),
        secret_key: Secret::new(s3.secret_key.clone()),
        path_style: true,
    }
}

async fn store() -> (TestS3, Blobs) {
    let s3 = warren_local::s3::for_tests().await;
    let blobs = Blobs::connect(&settings(&s3));
    blobs.ensure_bucket().await.expect("the bucket");
    (s3, blobs)
}

/// Bytes that differ from place to place, so that a wrong offset shows.
fn sample(len: usize) -> Bytes {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>().into()
}

fn in_blocks(bytes: &Bytes, block: usize) -> impl Stream<Item = Result<Bytes, String>> + use<> {
    let bytes = bytes.clone();
    stream::iter(
        (0..bytes.len().div_ceil(block))
            .map(move |number| Ok(bytes.slice(number * block..bytes.len().min((number + 1) * block)))),
    )
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files under the server's folder that belong to no object: parts of open uploads.
fn left_behind(s3: &TestS3) -> usize {
    let entries = std::fs::read_dir(s3.folder()).expect("the server's folder").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().contains("upload")).count()
}

#[tokio::test]
async fn what_is_put_is_got() {
    let (_s3, blobs) = store().await;
    blobs.ping().await.expect("it answers");
    let (key, bytes) = (Key::media(MEDIA), sample(100_000));
    assert_eq!(blobs.head(&key).await.expect("no trouble"), None);
    assert!(matches!(blobs.get_bytes(&key, ANY).await, Err(BlobError::Missing(_))));

    let stored = blobs.put_bytes(&key, bytes.clone()).await.expect("put");
    assert_eq!((stored.size, stored.sha256.as_str()), (100_000, sha256(&bytes).as_str()));
    assert_eq!(blobs.head(&key).await.expect("head").expect("there").size, 100_000);
    assert_eq!(blobs.get_bytes(&key, 100_000).await.expect("got"), bytes);
    assert_eq!(blobs.get_checked(&key, &stored.sha256, ANY).await.expect("got"), bytes);
    assert_eq!(blobs.get_range(&key, 99_990, 100).await.expect("the rest"), bytes.slice(99_990..));
    assert_eq!(blobs.get_range(&key, 7, 5).await.expect("a range"), bytes.slice(7..12));
    assert!(matches!(blobs.get_range(&key, 100_000, 1).await, Err(BlobError::OutOfRange { .. })));
    assert!(matches!(blobs.get_bytes(&key, 99_999).await, Err(BlobError::TooLarge { .. })));

    blobs.delete(&key).await.expect("deleted");
    blobs.delete(&key).await.expect("deleted again");
    assert_eq!(blobs.head(&key).await.expect("head"), None);
}

#[tokio::test]
async fn a_damaged_object_is_told_from_a_sound_one() {
    let (_s3, blobs) = store().await;
    let key = Key::texts(MEDIA);
    let stored = blobs.put_bytes(&key, sample(1000)).await.expect("put");
    let mut damaged = sample(1000).to_vec();
    damaged[500] ^= 1;
    blobs.put_bytes(&key, damaged.into()).await.expect("put");
    let error = blobs.get_checked(&key, &stored.sha256, ANY).await.expect_err("damaged");
    assert_eq!(error.fault().cause().code, Code::BlobDamaged);
}

#[tokio::test]
async fn streams_of_every_size_arrive_whole() {
    let (s3, blobs) = store().await;
    let key = Key::media(MEDIA);
    for len in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 2 * PART_BYTES + 12_345] {
        let bytes = sample(len);
        for block in [100_003, 3 * PART_BYTES] {
            let stored = blobs.put_stream(&key, in_blocks(&bytes, block), ANY).await.expect("stored");
            assert_eq!((stored.size, stored.sha256), (len as u64, sha256(&bytes)), "{len} in {block}");
            assert!(blobs.get_bytes(&key, ANY).await.expect("got") == bytes, "{len} in {block}");
        }
    }
    assert_eq!(left_behind(&s3), 0);
}

#[tokio::test]
async fn a_stream_that_fails_or_is_too_long_leaves_nothing() {
    let (s3, blobs) = store().await;
    let key = Key::media(MEDIA);
    let bytes = sample(2 * PART_BYTES + 1);
    let good: Vec<Result<Bytes, String>> = vec![Ok(bytes.clone()), Err("the client went away".to_owned())];
    let error = blobs.put_stream(&key, stream::iter(good), ANY).await.expect_err("broken");
    assert!(matches!(&error, BlobError::Source(why) if why.contains("went away")), "{error}");

    let limit = bytes.len() as u64 - 1;
    let error = blobs.put_stream(&key, in_blocks(&bytes, 1 << 20), limit).await.expect_err("too long");
    assert!(matches!(error, BlobError::TooLarge { .. }) && error.fault().is_input());
    assert_eq!(blobs.head(&key).await.expect("head"), None, "no object was made");

    // The parts are removed in the background, a moment later.
    while left_behind(&s3) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_reads_like_a_file() {
    let (_s3, blobs) = store().await;
    let key = Key::media(MEDIA);
    let bytes = sample(3 * BLOCK_BYTES as usize + 4321);
    blobs.put_stream(&key, in_blocks(&bytes, 1 << 20), ANY).await.expect("stored");
    let mut reader = blobs.open_reader(&key, Handle::current()).await.expect("opened");
    assert_eq!(reader.size(), bytes.len() as u64);
    let work = move || {
        let mut whole = Vec::new();
        reader.read_to_end(&mut whole).expect("read");
        assert!(whole == bytes, "in order");
        assert_eq!(reader.read(&mut [0; 8]).expect("at the end"), 0);

        let read_at = |reader: &mut BlobReader, to: SeekFrom, at: usize, len: usize| {
            assert_eq!(reader.seek(to).expect("sought"), at as u64);
            let mut part = vec![0; len];
            reader.read_exact(&mut part).expect("read");
            assert!(part == bytes[at..at + len], "{len} at {at}");
        };
        let block = BLOCK_BYTES as usize;
        read_at(&mut reader, SeekFrom::Start(5), 5, 100);
        read_at(&mut reader, SeekFrom::End(-10), bytes.len() - 10, 10);
        // Over the border of two blocks, and back.
        read_at(&mut reader, SeekFrom::Start(BLOCK_BYTES - 3), block - 3, 6);
        read_at(&mut reader, SeekFrom::Current(-6), block - 3, 6);
        read_at(&mut reader, SeekFrom::Start(2 * BLOCK_BYTES), 2 * block, block + 10);
        assert!(reader.seek(SeekFrom::End(-ANY.cast_signed().abs() - (1 << 40))).is_err(), "before the start");
        reader.seek(SeekFrom::Start(ANY)).expect("a seek past the end is allowed");
        assert_eq!(reader.read(&mut [0; 8]).expect("and finds nothing"), 0);
    };
    tokio::task::spawn_blocking(work).await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_vanishes_while_it_is_read_is_missing() {
    let (_s3, blobs) = store().await;
    let key = Key::media(MEDIA);
    blobs.put_bytes(&key, sample(100)).await.expect("put");
    let mut reader = blobs.open_reader(&key, Handle::current()).await.expect("opened");
    blobs.delete(&key).await.expect("deleted");
    let error = tokio::task::spawn_blocking(move || reader.read(&mut [0; 8])).await.expect("no panic");
    let error = error.expect_err("gone");
    assert!(matches!(BlobError::behind(&error), Some(BlobError::Missing(_))), "{error}");
    assert!(matches!(blobs.open_reader(&key, Handle::current()).await, Err(BlobError::Missing(_))));
}

#[tokio::test]
async fn a_prefix_covers_one_kind_of_objects() {
    let (_s3, blobs) = store().await;
    let other = Uuid::from_u128(7);
    for part in 0..3 {
        blobs.put_bytes(&Key::pcm(MEDIA, part), sample(10)).await.expect("put");
    }
    blobs.put_bytes(&Key::pcm(other, 0), sample(10)).await.expect("put");
    blobs.put_bytes(&Key::result(other, 1, MEDIA), sample(10)).await.expect("put");
    let listed = blobs.list(Prefix::PCM).await.expect("listed");
    assert_eq!(listed.len(), 4);
    assert!(listed.iter().all(|object| object.size == 10));
    let owners: Vec<_> = listed.iter().map(|object| Key::parse(&object.name).expect("ours").owner()).collect();
    assert_eq!(owners, [other, MEDIA, MEDIA, MEDIA]);
    assert_eq!(blobs.list(Prefix::RESULTS).await.expect("listed").len(), 1);
    assert_eq!(blobs.list(Prefix::TEXTS).await.expect("listed"), []);
    assert_eq!(blobs.list(Prefix::EVERYTHING).await.expect("listed").len(), 5);
}

#[tokio::test]
async fn a_wrong_login_and_a_missing_bucket_say_which_setting_is_at_fault() {
    let s3 = warren_local::s3::for_tests().await;
    let wrong = BlobSettings { secret_key: Secret::new("wrong".to_owned()), ..settings(&s3) };
    let error = Blobs::connect(&wrong).put_bytes(&Key::media(MEDIA), sample(1)).await.expect_err("refused");
    assert!(error.to_string().contains("blob.secret_key"), "{error}");

    let elsewhere = Blobs::connect(&BlobSettings { bucket: "elsewhere".to_owned(), ..settings(&s3) });
    assert!(elsewhere.ping().await.expect_err("no bucket").to_string().contains("elsewhere"));
    elsewhere.ensure_bucket().await.expect("made");
    elsewhere.ensure_bucket().await.expect("still there");
    elsewhere.ping().await.expect("there");
}

#[tokio::test]
async fn a_store_that_is_away_spends_no_attempt() {
    let s3 = warren_local::s3::for_tests().await;
    let blobs = Blobs::connect(&settings(&s3));
    s3.server.stop().await;
    let error = blobs.ping().await.expect_err("away");
    assert!(matches!(error.fault(), Fault::RetryLater { .. }), "{error}");
    assert!(error.to_string().contains("blob.endpoint"), "{error}");
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing() {
    let (s3, blobs) = store().await;
    let key = Key::media(MEDIA);
    let begun = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&begun);
    let bytes = sample(PART_BYTES + 1);
    let endless = stream::unfold(0, move |step| {
        let (bytes, begun) = (bytes.clone(), Arc::clone(&seen));
        async move {
            if step == 1 {
                begun.store(true, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            Some((Ok::<_, String>(bytes), step + 1))
        }
    });
    tokio::select! {
        _ = blobs.put_stream(&key, endless, ANY) => panic!("it never ends"),
        () = async { while !begun.load(Ordering::SeqCst) { tokio::task::yield_now().await; } } => {}
    }
    assert!(left_behind(&s3) > 0, "a part was on the server");
    while left_behind(&s3) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(blobs.head(&key).await.expect("head"), None);
}
