//! Defines an error of the library from the error of the same name in the core: the same variants
//! and texts. Only a type of this crate can be an actix-web response.

macro_rules! mirror {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $(
                $(#[$doc:meta])*
                $variant:ident $( ($inner:ident : $inner_type:ty) )? $( { $($field:ident : $type:ty),* } )?,
            )*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$doc])* $variant $( ($inner_type) )? $( { $($field: $type),* } )?, )*
        }

        impl From<core::$name> for $name {
            fn from(error: core::$name) -> Self {
                match error {
                    $( core::$name::$variant $( ($inner) )? $( { $($field),* } )? =>
                        Self::$variant $( ($inner) )? $( { $($field),* } )?, )*
                }
            }
        }

        impl From<$name> for core::$name {
            fn from(error: $name) -> Self {
                match error {
                    $( $name::$variant $( ($inner) )? $( { $($field),* } )? =>
                        Self::$variant $( ($inner) )? $( { $($field),* } )?, )*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                core::$name::from(self.clone()).fmt(f)
            }
        }

        impl std::error::Error for $name {}

        impl $name {
            /// The stable code.
            pub fn error_code(&self) -> core::ErrorCode {
                core::$name::from(self.clone()).error_code()
            }
        }
    };
}

pub(super) use mirror;
