//! The key that signs webhooks, as the Standard Webhooks specification 1.0.0 has it.
//!
//! It is derived from the cluster's secret, so every member can sign and nobody keeps a further secret. Whoever receives
//! webhooks is given the key's text, which tells nothing about the secret.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What the key is derived for; of no other use of the cluster's key.
const CONTEXT: &str = "idunno 2026-12-02 signatures of webhooks";

/// A key that signs webhooks.
pub struct WebhookKey([u8; 32]);

impl WebhookKey {
    /// The key that belongs to a private key of the cluster.
    pub(super) fn derive(key_der: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, key_der))
    }

    /// What a receiver is given to verify signatures: `whsec_` and the key in Base64.
    pub fn text(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.0))
    }

    /// The signature of a message: `v1,` and HMAC-SHA256 of `ID.TIMESTAMP.BODY` in Base64.
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let tag = hmac::sign(&key, format!("{id}.{timestamp_s}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The example of the reference implementation.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signed = "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
        let tag = STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
        assert_eq!(tag, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");

        let ours = WebhookKey([7; 32]);
        assert_eq!(ours.text(), format!("whsec_{}", STANDARD.encode([7; 32])));
        let signature = ours.sign("job-1-5", 9, "{}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let tag = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
        assert!(hmac::verify(&key, b"job-1-5.9.{}", &tag).is_ok());
        assert!(hmac::verify(&key, b"job-1-5.9.{ }", &tag).is_err());
    }

    #[test]
    fn each_key_of_the_cluster_has_its_own() {
        assert_eq!(WebhookKey::derive(b"one").text(), WebhookKey::derive(b"one").text());
        assert_ne!(WebhookKey::derive(b"one").text(), WebhookKey::derive(b"two").text());
    }
}
