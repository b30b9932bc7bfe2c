//! Datagrams of a stranger, and sealed ones changed on their way: none opens but as it was sealed, and once.
#![no_main]

use std::cell::RefCell;

use idunno_shared::security::Credentials;
use idunno_shared::security::datagrams::Seal;
use idunno_shared::security::secret::Secret;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SEALS: RefCell<(Seal, Seal)> = {
        let secret = Secret::generate().expect("a secret");
        let credentials = Credentials::of_member(secret).expect("credentials");
        let seal = || Seal::new(credentials.clone()).expect("a seal").expect("a secure one");
        RefCell::new((seal(), seal()))
    };
}

fuzz_target!(|input: (&[u8], Vec<(u16, u8)>)| {
    let (plain, changes) = input;
    SEALS.with_borrow_mut(|(sender, receiver)| {
        let mut noise = plain.to_vec();
        assert!(receiver.open(&mut noise).is_err(), "a datagram without a seal was taken");
        let sealed = sender.seal(plain).expect("sealed");
        let mut changed = sealed.clone();
        let length = changed.len();
        changes.iter().for_each(|&(at, bits)| changed[usize::from(at) % length] ^= bits);
        let is_changed = changed != sealed;
        assert!(!(is_changed && receiver.open(&mut changed).is_ok()), "a changed datagram was taken");
        let mut whole = sealed.clone();
        let range = receiver.open(&mut whole).expect("what was sealed opens");
        assert_eq!(&whole[range], plain);
        assert!(receiver.open(&mut sealed.clone()).is_err(), "a datagram was taken twice");
    });
});
