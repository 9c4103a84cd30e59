//! The macro that turns the table of settings into types, readers and documentation.

/// One row of the table, with the value it has in some [`super::Config`].
pub struct Row {
    /// Section and name, as a TOML file has them.
    pub key: &'static str,
    /// Why it is there.
    pub reason: &'static str,
    /// The value as TOML, secrets redacted; `None` when it is not set.
    pub value: Option<String>,
    /// Least and greatest number.
    pub range: Option<std::ops::RangeInclusive<u64>>,
}

/// A name of the table that groups rows.
pub struct Section {
    /// Its name; empty for the rows above all sections.
    pub name: &'static str,
    /// What it is about.
    pub reason: &'static str,
    /// Its rows, in the table's order.
    pub rows: Vec<Row>,
}

macro_rules! settings {
    (
        top {
            $( $(#[doc = $top_doc:literal])+ $top:ident : $top_type:ty = $top_default:expr
                $(, dev $top_dev:expr)? $(, in $top_range:expr)? ; )*
        }
        $( $(#[doc = $section_doc:literal])+ section $section:ident : $struct:ident {
            $( $(#[doc = $doc:literal])+ $name:ident : $type:ty = $default:expr
                $(, dev $dev:expr)? $(, in $range:expr)? ; )*
        } )*
    ) => {
        /// Everything that can be set, checked.
        #[derive(Debug, Clone)]
        pub struct Config {
            $( $(#[doc = $top_doc])+ pub $top: $top_type, )*
            $( $(#[doc = $section_doc])+ pub $section: $struct, )*
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone)]
            pub struct $struct {
                $( $(#[doc = $doc])+ pub $name: $type, )*
            }
        )*

        impl Config {
            /// Every setting's full name.
            pub const KEYS: &'static [&'static str] = &[
                $( stringify!($top), )*
                $( $( concat!(stringify!($section), ".", stringify!($name)), )* )*
            ];

            /// The names that group settings.
            pub const SECTIONS: &'static [&'static str] = &[ $( stringify!($section), )* ];

            /// Takes every setting from the layers, or else its default. Mistakes stay in the
            /// layers.
            fn read(layers: &mut $crate::config::layers::Layers, dev: bool) -> Self {
                Self {
                    $( $top: layers.take(
                        stringify!($top),
                        settings!(@default dev, $top_default $(, $top_dev)?),
                        settings!(@range $($top_range)?),
                    ), )*
                    $( $section: $struct {
                        $( $name: layers.take(
                            concat!(stringify!($section), ".", stringify!($name)),
                            settings!(@default dev, $default $(, $dev)?),
                            settings!(@range $($range)?),
                        ), )*
                    }, )*
                }
            }

            /// The table with this configuration's values in it.
            #[must_use]
            fn sections(&self) -> Vec<$crate::config::table::Section> {
                use $crate::config::table::{Row, Section};
                use $crate::config::value::SettingValue as _;
                vec![
                    Section {
                        name: "",
                        reason: "",
                        rows: vec![ $( Row {
                            key: stringify!($top),
                            reason: concat!($($top_doc),+),
                            value: self.$top.show(),
                            range: settings!(@range $($top_range)?),
                        }, )* ],
                    },
                    $( Section {
                        name: stringify!($section),
                        reason: concat!($($section_doc),+),
                        rows: vec![ $( Row {
                            key: concat!(stringify!($section), ".", stringify!($name)),
                            reason: concat!($($doc),+),
                            value: self.$section.$name.show(),
                            range: settings!(@range $($range)?),
                        }, )* ],
                    }, )*
                ]
            }
        }
    };
    (@default $is_dev:ident, $default:expr) => { $default };
    (@default $is_dev:ident, $default:expr, $dev:expr) => { if $is_dev { $dev } else { $default } };
    (@range) => { None };
    (@range $range:expr) => { Some($range) };
}

pub(super) use settings;
