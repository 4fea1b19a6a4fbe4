#![no_main]

libfuzzer_sys::fuzz_target!(init: warren_fuzz::let_guarded_panics_pass(), |data: &[u8]| {
    warren_fuzz::models::embedding_model(data);
});
