//! The module behind this one, and the lists of functions that callers get instead of its own.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use cryptoki_sys::{
    CK_C_GetInterface, CK_C_GetInterfaceList, CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0,
    CK_FUNCTION_LIST_3_2, CK_FUNCTION_LIST_PTR_PTR, CK_INTERFACE, CK_INTERFACE_PTR, CK_RV, CK_UTF8CHAR_PTR,
    CK_VERSION, CK_VERSION_PTR, CKR_ARGUMENTS_BAD, CKR_OK,
};

use crate::function::with_functions;
use crate::{C_GetFunctionList, C_GetInterface, C_GetInterfaceList, calls};

const DEFAULT_MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The name of the standard's own interfaces (PKCS#11 3.0, 5.4.5).
const STANDARD: &CStr = c"PKCS 11";

/// The module behind, and our lists.
pub(crate) struct Module {
    real: &'static CK_FUNCTION_LIST,
    ours: &'static CK_FUNCTION_LIST,
    /// One for each of the module behind, in its order.
    interfaces: Vec<CK_INTERFACE>,
    /// Those of the module behind; empty when it has none.
    behind: Vec<CK_INTERFACE>,
    get_interface: CK_C_GetInterface,
}

// SAFETY: the pointers in it lead to tables that are written once, before anybody else sees them, and stay for good.
unsafe impl Sync for Module {}
// SAFETY: as above.
unsafe impl Send for Module {}

static MODULE: OnceLock<Option<Module>> = OnceLock::new();

/// The module behind, loaded at the first call; `None` when it cannot be.
pub(crate) fn get() -> Option<&'static Module> {
    MODULE.get_or_init(load).as_ref()
}

impl Module {
    /// What to call.
    pub(crate) fn real(&self) -> &'static CK_FUNCTION_LIST {
        self.real
    }

    /// What callers get.
    pub(crate) fn list(&self) -> &'static CK_FUNCTION_LIST {
        self.ours
    }

    pub(crate) fn interfaces(&self) -> &[CK_INTERFACE] {
        &self.interfaces
    }

    /// The interface that the module behind would have chosen, in our form.
    ///
    /// # Safety
    /// `name` must be null or end with a zero byte, `version` be null or point to a version.
    pub(crate) unsafe fn interface(
        &self,
        name: CK_UTF8CHAR_PTR,
        version: CK_VERSION_PTR,
        flags: CK_FLAGS,
    ) -> Result<*mut CK_INTERFACE, CK_RV> {
        let Some(get) = self.get_interface else {
            // SAFETY: the caller's promises.
            let fits = flags == 0 && unsafe { is_standard(name) && is_2_40(version) };
            return if fits {
                Ok(self.at(0))
            } else {
                Err(CKR_ARGUMENTS_BAD)
            };
        };
        let mut found = std::ptr::null_mut();
        // SAFETY: the caller's arguments, and a place for the answer.
        let code = unsafe { get(name, version, &raw mut found, flags) };
        if code != CKR_OK {
            return Err(code);
        }
        // SAFETY: after CKR_OK there is an interface.
        let list = unsafe { (*found).pFunctionList };
        let place = self.behind.iter().position(|one| one.pFunctionList == list);
        Ok(place.map_or(found, |place| self.at(place)))
    }

    fn at(&self, place: usize) -> *mut CK_INTERFACE {
        std::ptr::from_ref(&self.interfaces[place]).cast_mut()
    }
}

/// # Safety
/// `name` must be null or end with a zero byte.
unsafe fn is_standard(name: CK_UTF8CHAR_PTR) -> bool {
    // SAFETY: not null when it is read, and the caller promises the zero byte.
    name.is_null() || unsafe { CStr::from_ptr(name.cast()) } == STANDARD
}

/// # Safety
/// `version` must be null or point to a version.
unsafe fn is_2_40(version: CK_VERSION_PTR) -> bool {
    // SAFETY: not null when it is read, and the caller promises a version.
    version.is_null() || unsafe { ((*version).major, (*version).minor) } == (2, 40)
}

/// The path by which this module was loaded, symbolic links as they are.
pub(crate) fn own_path() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let inside = C_GetFunctionList as *const std::ffi::c_void;
    // SAFETY: an address in this module, and a place for the answer.
    let found = unsafe { libc::dladdr(inside, &raw mut info) } != 0 && !info.dli_fname.is_null();
    // SAFETY: the loader keeps this name, which ends with a zero byte, for as long as the module is loaded.
    let name = found.then(|| unsafe { CStr::from_ptr(info.dli_fname) })?;
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

fn load() -> Option<Module> {
    let path = std::env::var("FAULTY_TOKEN_MODULE").unwrap_or_else(|_| DEFAULT_MODULE.to_owned());
    // SAFETY: loading a library runs its constructors; the operator of a rehearsal names a PKCS#11 module here.
    let library = unsafe { libloading::Library::new(&path) };
    let library = library
        .map_err(|error| eprintln!("FAULTY_TOKEN_MODULE: {path}: {error}"))
        .ok()?;
    // The library stays for the life of the process: its functions are called until the end.
    let library = Box::leak(Box::new(library));
    let real = function_list(library)?;
    let ours = Box::leak(Box::new(in_front(*real)));
    let behind = interfaces_behind(library);
    let interfaces = if behind.is_empty() {
        vec![standard_interface(ours)]
    } else {
        behind.iter().map(ours_for).collect()
    };
    // SAFETY: a module that exports this function gives it this type (PKCS#11 3.0, 5.4).
    let get_interface = unsafe { library.get::<CK_C_GetInterface>(b"C_GetInterface\0") };
    let get_interface = get_interface.ok().and_then(|symbol| *symbol);
    Some(Module {
        real,
        ours,
        interfaces,
        behind,
        get_interface,
    })
}

fn function_list(library: &libloading::Library) -> Option<&'static CK_FUNCTION_LIST> {
    type GetFunctionList = unsafe extern "C" fn(CK_FUNCTION_LIST_PTR_PTR) -> CK_RV;
    let mut list = std::ptr::null_mut();
    // SAFETY: every PKCS#11 module exports this function with this type (PKCS#11 3.0, 5.4).
    let get = unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList\0") }.ok()?;
    // SAFETY: the argument is a valid place for one pointer.
    let code = unsafe { get(&raw mut list) };
    if code != CKR_OK {
        return None;
    }
    // SAFETY: after CKR_OK the pointer leads to the module's own, permanent list.
    unsafe { list.as_ref() }
}

fn interfaces_behind(library: &libloading::Library) -> Vec<CK_INTERFACE> {
    // SAFETY: a module that exports this function gives it this type (PKCS#11 3.0, 5.4).
    let get = unsafe { library.get::<CK_C_GetInterfaceList>(b"C_GetInterfaceList\0") };
    let Some(get) = get.ok().and_then(|symbol| *symbol) else {
        return Vec::new();
    };
    let ask = |list: CK_INTERFACE_PTR, count: &mut u64| {
        // SAFETY: `list` is null or has room for `count` interfaces.
        unsafe { get(list, count) == CKR_OK }
    };
    let mut count = 0;
    if !ask(std::ptr::null_mut(), &mut count) {
        return Vec::new();
    }
    let mut list = vec![CK_INTERFACE::default(); usize::try_from(count).unwrap_or(0)];
    let got = ask(list.as_mut_ptr(), &mut count);
    list.truncate(if got {
        usize::try_from(count).unwrap_or(0)
    } else {
        0
    });
    list
}

fn standard_interface(list: &'static CK_FUNCTION_LIST) -> CK_INTERFACE {
    CK_INTERFACE {
        pInterfaceName: STANDARD.as_ptr().cast_mut().cast(),
        pFunctionList: std::ptr::from_ref(list).cast_mut().cast(),
        flags: 0,
    }
}

/// The same interface with our functions in it; a vendor's own interface stays as it is.
fn ours_for(behind: &CK_INTERFACE) -> CK_INTERFACE {
    let list = behind.pFunctionList;
    // SAFETY: names of interfaces end with a zero byte.
    if list.is_null() || !unsafe { is_standard(behind.pInterfaceName) } {
        return *behind;
    }
    // SAFETY: each list of functions begins with its version, which says what it is (PKCS#11 3.0, 3.6).
    let ours = unsafe {
        match *list.cast::<CK_VERSION>() {
            CK_VERSION { major: 2, .. } => leak(in_front(*list.cast::<CK_FUNCTION_LIST>())),
            CK_VERSION {
                major: 3,
                minor: 0..=1,
            } => leak(in_front_3_0(*list.cast::<CK_FUNCTION_LIST_3_0>())),
            CK_VERSION { major: 3, .. } => leak(in_front_3_2(*list.cast::<CK_FUNCTION_LIST_3_2>())),
            _ => list,
        }
    };
    CK_INTERFACE {
        pFunctionList: ours,
        ..*behind
    }
}

fn leak<T>(list: T) -> *mut std::ffi::c_void {
    std::ptr::from_mut(Box::leak(Box::new(list))).cast()
}

/// Puts our function in the place of each that the module behind has.
macro_rules! replace {
    ($list:ident $($name:ident)*) => {
        $( if $list.$name.is_some() { $list.$name = Some(calls::$name); } )*
    };
}

fn in_front(mut list: CK_FUNCTION_LIST) -> CK_FUNCTION_LIST {
    with_functions!(replace!(list));
    list.C_GetFunctionList = Some(C_GetFunctionList);
    list
}

macro_rules! in_front_3 {
    ($name:ident, $list:ty) => {
        fn $name(mut list: $list) -> $list {
            with_functions!(replace!(list));
            list.C_GetFunctionList = Some(C_GetFunctionList);
            list.C_GetInterfaceList = Some(C_GetInterfaceList);
            list.C_GetInterface = Some(C_GetInterface);
            list
        }
    };
}
in_front_3!(in_front_3_0, CK_FUNCTION_LIST_3_0);
in_front_3!(in_front_3_2, CK_FUNCTION_LIST_3_2);
