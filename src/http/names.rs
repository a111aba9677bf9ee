//! The names of users in a path.

use actix_web::HttpRequest;
use fanfare_core::error::ErrorCode;
use percent_encoding::percent_decode_str;

use super::refusal::Refusal;

/// The last segments of a request's path, decoded. The framework would replace invalid UTF-8 by
/// U+FFFD, so two users could get the same name.
pub(crate) fn last_segments<const N: usize>(request: &HttpRequest) -> Result<[String; N], Refusal> {
    let mut names = [const { String::new() }; N];
    for (name, segment) in names.iter_mut().rev().zip(request.uri().path().rsplit('/')) {
        let decoded = percent_decode_str(segment).decode_utf8();
        let bad_user = |_| {
            let message = "a user's name must be UTF-8";
            Refusal::new(ErrorCode::BadUser, message)
        };
        *name = decoded.map_err(bad_user)?.into_owned();
    }
    Ok(names)
}
