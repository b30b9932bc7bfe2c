//! The environment of a supervised model server: what interpreters and the libraries of models read. The daemon's own may
//! hold credentials, of a bucket for example, which no model must see.

use std::ffi::OsString;

const PASSED_ON: [&str; 23] = [
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "IDUNNO_TEST_FAULTS",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "PYTHONHASHSEED",
    "PYTHONHOME",
    "PYTHONPATH",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
];
/// What the names of others begin with: the model server's own settings, and those of libraries.
const FAMILIES: [&str; 21] = [
    "CUDA_",
    "HIP_",
    "HSA_",
    "IDUNNO_MODEL",
    "JAX_",
    "KMP_",
    "LC_",
    "MALLOC_",
    "MKL_",
    "NCCL_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "PYTORCH_",
    "ROCR_",
    "TF_CPP_",
    "TF_ENABLE_",
    "TORCH_",
    "UV_CACHE",
    "XDG_",
    "XLA_",
];

/// Those of `variables` that a model server gets. `secret` are names that hold secrets, whatever they are called.
pub(super) fn passed_on(
    variables: impl Iterator<Item = (OsString, OsString)>,
    secret: &[String],
) -> impl Iterator<Item = (OsString, OsString)> {
    variables.filter(|(name, _)| {
        let Some(name) = name.to_str() else { return false };
        let is_known = PASSED_ON.iter().any(|known| known.eq_ignore_ascii_case(name))
            || FAMILIES.iter().any(|family| name.starts_with(family));
        is_known && !secret.iter().any(|secret| secret == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_server_gets_what_libraries_read_and_no_credentials() {
        let given = [
            "PATH",
            "http_proxy",
            "CUDA_VISIBLE_DEVICES",
            "IDUNNO_MODEL_DATA",
            "AWS_SECRET_ACCESS_KEY",
            "IDUNNO_SECRET",
            "NVIDIA_API_KEY",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ];
        let given = given.map(|name| (OsString::from(name), OsString::from("x")));
        let secret = [String::from("NVIDIA_API_KEY")];
        let passed: Vec<OsString> = passed_on(given.into_iter(), &secret).map(|(name, _)| name).collect();
        assert_eq!(passed, ["PATH", "http_proxy", "CUDA_VISIBLE_DEVICES", "IDUNNO_MODEL_DATA"]);
    }
}
