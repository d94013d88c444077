//! The engine's images: the one that a workspace is made from, and all of them.

use bollard::models::{ImageInspect, ImageSummary};
use bollard::query_parameters::ListImagesOptions;

use super::Docker;
use super::engine::{EngineError, QUICK_LIMIT};
use super::names::ImageName;
use crate::model::Pull;

impl Docker {
    /// What the image says of itself, after it was fetched if that is wanted.
    pub(super) async fn image(
        &self,
        image: &ImageName,
        pull: Pull,
    ) -> Result<ImageInspect, EngineError> {
        if pull == Pull::Always {
            self.pulls.pull(&self.shared, image).await?;
        }
        let mut found = self.engine().image(image).await?;
        if found.is_none() && pull == Pull::Missing {
            self.pulls.pull(&self.shared, image).await?;
            found = self.engine().image(image).await?;
        }
        found.ok_or_else(|| missing(image))
    }

    /// The names of all images.
    pub(super) async fn image_names(&self) -> Result<Vec<String>, EngineError> {
        let listed = self.engine().call(QUICK_LIMIT, |client| async move {
            client.list_images(None::<ListImagesOptions>).await
        });
        Ok(names(listed.await?))
    }
}

/// An image that isn't there, which people can do something about.
pub(super) fn missing(image: &ImageName) -> EngineError {
    let image = image.as_str();
    EngineError::refused(format!(
        "there is no image {image} on this machine; `docker pull {image}` fetches it"
    ))
}

fn names(images: Vec<ImageSummary>) -> Vec<String> {
    let mut names: Vec<String> = images.into_iter().flat_map(|image| image.repo_tags).collect();
    names.retain(|name| !name.contains("<none>"));
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untagged_images_have_no_name_and_others_have_one_each() {
        let image = |tags: &[&str]| ImageSummary {
            repo_tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            ..ImageSummary::default()
        };
        let listed = vec![
            image(&["b:2", "b:latest"]),
            image(&["<none>:<none>"]),
            image(&[]),
            image(&["a:1", "b:2"]),
        ];
        assert_eq!(names(listed), ["a:1", "b:2", "b:latest"]);
    }
}
