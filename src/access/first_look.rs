//! The two looks at a request for a raw stream: on the bare socket, and, if refused there, by the
//! framework, which writes the refusal. The application is asked at the first look only.

use std::future::Future;

tokio::task_local! {
    static FIRST_LOOK: ();
}

/// Runs the first look at a request.
pub(crate) async fn first_look<F: Future>(look: F) -> F::Output {
    FIRST_LOOK.scope((), look).await
}

/// Whether a second look follows a refusal.
pub(crate) fn is_first_look() -> bool {
    FIRST_LOOK.try_with(|()| ()).is_ok()
}
