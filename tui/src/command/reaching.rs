//! Arguments that say how objects outside the cluster are reached.

use clap::Args;
use idunno_shared::wire::references::ReferenceSource;

/// How objects in a bucket are reached, by this program and by the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Reaching {
    /// The service, if it is not the one that the URL's scheme stands for: MinIO, Ceph, an IDunno gateway
    #[arg(long, value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// The region of an S3 bucket [default: AWS_REGION, or us-east-1]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Send no credentials: the bucket is public
    #[arg(long)]
    pub anonymous: bool,
}

impl Reaching {
    /// What the dataset keeps of it.
    pub fn source(self) -> ReferenceSource {
        let Self { endpoint_url: endpoint, region, anonymous } = self;
        ReferenceSource { endpoint, region, anonymous }
    }
}
