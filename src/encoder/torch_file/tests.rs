use super::*;

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(number: i64) -> Vec<u8> {
    [b"\x8a\x08", &number.to_le_bytes()[..]].concat()
}

fn tuple(numbers: &[i64]) -> Vec<u8> {
    let items: Vec<u8> = numbers.iter().flat_map(|number| int(*number)).collect();
    [b"(", &items[..], b"t"].concat()
}

/// The description of a storage of f32 values.
fn storage(length: i64) -> Vec<u8> {
    let id =
        [text("storage"), b"ctorch\nFloatStorage\n".into(), text("0"), text("cpu"), int(length)];
    [b"(", &id.concat()[..], b"tQ"].concat()
}

/// A call that makes a tensor.
fn tensor(length: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let called: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    let given = [storage(length), int(offset), tuple(shape), tuple(strides)].concat();
    [called, &given, b"\x89ccollections\nOrderedDict\n)RtR"].concat()
}

/// The pickle of a dictionary with one item.
fn dictionary(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}", &text("w")[..], value, b"s."].concat()
}

/// A zip archive that stores its entries as they are.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let place = bytes.len() as u32;
        let sizes = [(content.len() as u32).to_le_bytes(), (content.len() as u32).to_le_bytes()];
        let lengths = [(name.len() as u16).to_le_bytes(), [0; 2]].concat();
        bytes.extend([b"PK\x03\x04", &[0; 14][..], &sizes.concat(), &lengths].concat());
        bytes.extend([name.as_bytes(), content].concat());
        let header = [b"PK\x01\x02", &[0; 16][..], &sizes.concat(), &lengths, &[0; 10]].concat();
        directory.extend([&header[..], &place.to_le_bytes(), name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let end = [
        b"PK\x05\x06\0\0\0\0",
        &count[..],
        &count,
        &(directory.len() as u32).to_le_bytes(),
        &(bytes.len() as u32).to_le_bytes(),
        &[0; 2],
    ];
    [bytes, directory, end.concat()].concat()
}

/// The bytes of six numbers, 0 to 5.
fn six() -> Vec<u8> {
    (0u8..6).flat_map(|number| f32::from(number).to_le_bytes()).collect()
}

fn file(pickle: &[u8]) -> Vec<u8> {
    archive(&[("model/data.pkl", pickle), ("model/byteorder", b"little"), ("model/data/0", &six())])
}

fn open(bytes: Vec<u8>) -> Result<TorchFile> {
    TorchFile::open(Path::new("pytorch_model.bin"), bytes.into())
}

#[track_caller]
fn refused(bytes: Vec<u8>, what: &str) {
    let Err(error) = open(bytes) else { panic!("a file is read that has {what}") };
    let message = error.to_string();
    assert!(message.contains("pytorch_model.bin") && message.contains(what), "{message}");
}

fn values(file: &TorchFile) -> Vec<f32> {
    let bytes = file.data(file.tensor("w").unwrap());
    let four = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap());
    bytes.chunks_exact(4).map(four).collect()
}

#[test]
fn a_tensor_is_read_whatever_its_strides() {
    for (offset, shape, strides, expected) in [
        (0, &[2, 3][..], &[3, 1][..], &[0., 1., 2., 3., 4., 5.][..]),
        (0, &[3, 2], &[1, 3], &[0., 3., 1., 4., 2., 5.]),
        (2, &[2], &[2], &[2., 4.]),
        (1, &[1, 4], &[77, 1], &[1., 2., 3., 4.]),
        (5, &[], &[], &[5.]),
        (3, &[3], &[0], &[3., 3., 3.]),
        (0, &[0, 5], &[5, 1], &[]),
    ] {
        let pickle = dictionary(&tensor(6, offset, shape, strides));
        let read = open(file(&pickle)).unwrap();
        assert_eq!(values(&read), expected, "{shape:?} {strides:?}");
        assert_eq!(read.tensors().count(), 1);
    }
}

#[test]
fn a_parameter_and_the_attributes_of_a_dictionary_are_read() {
    let tensor = tensor(6, 0, &[6], &[1]);
    let parameter = [b"ctorch._utils\n_rebuild_parameter\n", &tensor[..], b"\x88}\x87R"].concat();
    let item =
        [b"\x80\x02ccollections\nOrderedDict\n)R", &text("w")[..], &parameter, b"s"].concat();
    let pickle = [&item[..], b"}", &text("_metadata"), b"}sb."].concat();
    assert_eq!(values(&open(file(&pickle)).unwrap()), [0., 1., 2., 3., 4., 5.]);
}

#[test]
fn a_name_that_is_not_on_the_list_is_refused_by_that_name() {
    let system = |function: &str| [function.as_bytes(), b"(", &text("true"), b"tR"].concat();
    refused(file(&dictionary(&system("cos\nsystem\n"))), "`os.system`");
    refused(file(&dictionary(&system("cbuiltins\neval\n"))), "`builtins.eval`");
    refused(file(&dictionary(b"ctorch\nQInt8Storage\n")), "`torch.QInt8Storage`");
    refused(file(&dictionary(b"cposix\n\x1b[2J\n")), "`posix.\\u{1b}[2J`");
    let on_the_stack = [text("os"), text("system"), b"\x93".into()].concat();
    refused(file(&dictionary(&on_the_stack)), "`os.system`");
    // Opcodes that import or make objects in other ways.
    for opcode in [b"i", b"o", b"\x81", b"\x82", b"P"] {
        refused(file(&dictionary(opcode)), "the pickle opcode");
    }
    // Names on the list, used for something else.
    refused(file(&dictionary(b"ctorch\nFloatStorage\n)R")), "a call of the type of a storage");
    refused(file(&dictionary(b"ccollections\nOrderedDict\n(]tR")), "made of something");
    refused(file(&dictionary(b"K\x01K\x01R")), "a call of a number");
}

#[test]
fn what_is_no_dictionary_of_tensors_is_refused() {
    refused(file(b"\x80\x02]."), "a list in place of a dictionary of tensors");
    refused(file(&dictionary(b"K\x01")), "a number as `w`");
    refused(file(&dictionary(b"}")), "a dictionary as `w`");
    refused(file(b"\x80\x02}K\x01Ns."), "a number as the name of a tensor");
}

#[test]
fn a_tensor_beyond_its_storage_is_refused() {
    for (length, offset, shape, strides) in [
        (6, 1, &[6][..], &[1][..]),
        (6, 0, &[2, 3], &[4, 1]),
        (6, 6, &[1], &[1]),
        (6, 0, &[2], &[i64::MAX]),
        (6, i64::MAX, &[2], &[1]),
        (6, 0, &[1 << 62, 8], &[0, 0]),
        (6, 0, &[1 << 62, 8, 0], &[0, 0, 0]),
        // More values than there are: each is read many times.
        (6, 0, &[7], &[0]),
    ] {
        let pickle = dictionary(&tensor(length, offset, shape, strides));
        refused(file(&pickle), "beyond the 6 values");
    }
    refused(file(&dictionary(&tensor(7, 0, &[7], &[1]))), "7 values has 24 bytes");
    refused(file(&dictionary(&tensor(i64::MAX, 0, &[6], &[1]))), "has 24 bytes");
    refused(file(&dictionary(&tensor(-1, 0, &[6], &[1]))), "a storage of -1 values");
    refused(file(&dictionary(&tensor(6, 0, &[-6], &[1]))), "the size -6");
    refused(file(&dictionary(&tensor(6, -1, &[6], &[1]))), "starts -1 values");
    refused(file(&dictionary(&tensor(6, 0, &[1; 9], &[1; 9]))), "9 dimensions");
    refused(file(&dictionary(&tensor(6, 0, &[6], &[1, 1]))), "not described as torch.save");
}

#[test]
fn values_inside_themselves_and_deep_nesting_cost_nothing() {
    // A list that is kept in the memo and appended to itself.
    refused(file(&dictionary(b"]q\0h\0a")), "a list as `w`");
    // A dictionary that is its own item.
    refused(file(&[b"\x80\x02}q\0", &text("w")[..], b"h\0s."].concat()), "a dictionary as `w`");
    let deep = [vec![b']'; 300_000], vec![b'a'; 299_999]].concat();
    refused(file(&dictionary(&deep)), "a list as `w`");
    let marks = dictionary(&vec![b'('; 300_000]);
    refused(file(&marks), "takes more values than it has made");
}

#[test]
fn a_pickle_of_too_many_bytes_or_values_is_refused() {
    refused(file(&dictionary(&text(&"a".repeat(5 << 20)))), "a pickle of more than 4194304 bytes");
    let many = (1 << 20) + 1;
    let storage = storage(6);
    let of_storage = [&storage[..storage.len() - 1], b"q\0Q"].concat();
    for (start, repeated) in [
        (&b""[..], &b"N"[..]),
        (b"", b"("),
        // The same value again, under a new number in the memo, and as one storage after the other.
        (b"Nq\0", b"h\0"),
        (b"N", b"\x94"),
        (&of_storage[..], b"h\0Q"),
    ] {
        let pickle = dictionary(&[start, &repeated.repeat(many)].concat());
        refused(file(&pickle), "a pickle of more than 1048576 values");
    }
}

#[test]
fn a_pickle_that_is_cut_off_is_refused_wherever_it_ends() {
    let pickle = dictionary(&tensor(6, 0, &[6], &[1]));
    assert!(open(file(&pickle)).is_ok());
    for end in 0..pickle.len() {
        assert!(open(file(&pickle[..end])).is_err(), "{end}");
    }
    for (pickle, what) in [
        (&b"\x80\x02."[..], "takes more values"),
        (b"\x80\x02t.", "closes what it has not opened"),
        (b"\x80\x02h\x07.", "recalls what it has not kept"),
        (b"\x80\x02}s.", "takes more values"),
        (b"\x80\x09}.", "protocol 9"),
    ] {
        refused(file(pickle), what);
    }
}

#[test]
fn an_archive_that_is_damaged_or_compressed_is_refused() {
    let pickle = dictionary(&tensor(6, 0, &[6], &[1]));
    let whole = file(&pickle);
    for end in [0, 4, 30, whole.len() / 2, whole.len() - 1] {
        assert!(open(whole[..end].to_vec()).is_err(), "{end}");
    }
    let entry = whole.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    let changed = |place: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[entry + place] = byte;
        bytes
    };
    refused(changed(10, 8), "`model/data.pkl` in the archive compressed");
    refused(changed(8, 1), "`model/data.pkl` in the archive encrypted");
    refused(changed(20, 0), "two sizes");
    let bomb = |sizes: [u8; 4]| {
        let mut bytes = whole.clone();
        bytes[entry + 20..entry + 24].copy_from_slice(&sizes);
        bytes[entry + 24..entry + 28].copy_from_slice(&sizes);
        bytes
    };
    refused(bomb([0, 0, 0, 0x7f]), "which the file does not hold");
    refused(bomb([0xff; 4]), "does not say where `model/data.pkl` is");
    refused(changed(45, 0x7f), "which the file does not hold");

    let six = six();
    refused(archive(&[("model/data.pkl", &pickle)]), "`w` without its storage");
    refused(archive(&[("model/data/0", &six)]), "without data.pkl");
    refused(archive(&[("a/data.pkl", &pickle), ("b/data.pkl", &pickle)]), "several data.pkl");
    refused(archive(&[("a/data.pkl", &pickle), ("a/data.pkl", &pickle)]), "twice in the archive");
    refused(archive(&[("a/data.pkl", &pickle), ("a/constants.pkl", b"")]), "TorchScript");
    refused(
        archive(&[("a/data.pkl", &pickle), ("a/byteorder", b"big"), ("a/data/0", &six)]),
        "most significant byte first",
    );
    refused(b"<html>not found</html>".into(), "22 bytes that torch.save did not write");
}

#[test]
fn an_archive_of_more_than_4_gigabytes_says_its_sizes_in_64_bits() {
    let pickle = dictionary(&tensor(6, 0, &[6], &[1]));
    let mut bytes = file(&pickle);
    let end = bytes.split_off(bytes.len() - 22);
    let directory = u32::from_le_bytes(end[16..20].try_into().unwrap()) as usize;
    // The first entry gets an extra field with its sizes and its place.
    let extra = [
        &[1, 0, 24, 0][..],
        &(pickle.len() as u64).to_le_bytes(),
        &(pickle.len() as u64).to_le_bytes(),
        &0u64.to_le_bytes(),
    ]
    .concat();
    for place in [20, 24, 42] {
        bytes[directory + place..directory + place + 4].fill(0xff);
    }
    bytes[directory + 30] = extra.len() as u8;
    let name_end = directory + 46 + "model/data.pkl".len();
    drop(bytes.splice(name_end..name_end, extra));
    let end_64 = bytes.len() as u64;
    bytes.extend([b"PK\x06\x06", &[0; 28][..], &3u64.to_le_bytes(), &[0; 8]].concat());
    bytes.extend((directory as u64).to_le_bytes());
    bytes.extend([b"PK\x06\x07", &[0; 4][..], &end_64.to_le_bytes(), &[0; 4]].concat());
    bytes.extend([b"PK\x05\x06", &[0; 4][..], &[0xff; 12], &[0; 2]].concat());
    assert_eq!(values(&open(bytes).unwrap()), [0., 1., 2., 3., 4., 5.]);
}

/// A file as torch.save wrote it before PyTorch 1.6.
fn old_file(tensors: &[u8], names: &[u8], storages: &[u8]) -> Vec<u8> {
    let magic: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let machine = [b"\x80\x02}", &text("little_endian")[..], b"\x88s."].concat();
    [magic, b"\x80\x02M\xe9\x03.", &machine, tensors, names, storages].concat()
}

#[test]
fn a_file_of_the_old_form_is_read_and_refused_likewise() {
    let pickle = dictionary(&tensor(6, 0, &[3, 2], &[1, 3]));
    let names = [b"\x80\x02](", &text("0")[..], b"e."].concat();
    let storages = [6u64.to_le_bytes().to_vec(), six()].concat();
    let whole = old_file(&pickle, &names, &storages);
    assert_eq!(values(&open(whole.clone()).unwrap()), [0., 3., 1., 4., 2., 5.]);
    for end in 0..whole.len() {
        assert!(open(whole[..end].to_vec()).is_err(), "{end}");
    }
    let other = |tensors: &[u8]| old_file(tensors, &names, &storages);
    refused(other(&dictionary(b"cos\nsystem\n(tR")), "`os.system`");
    refused(other(&dictionary(&tensor(6, 1, &[6], &[1]))), "beyond the 6 values");
    refused(other(&dictionary(&tensor(5, 0, &[5], &[1]))), "which the tensors say has 5");
    refused(old_file(&pickle, &names, &storages[..20]), "that the file does not hold");
    refused(old_file(&pickle, b"\x80\x02].", b""), "`w` without its storage");
    let stranger = [b"\x80\x02](", &text("1")[..], b"e."].concat();
    refused(old_file(&pickle, &stranger, &storages), "that no tensor uses");
    refused(b"\x80\x02}.".into(), "a pickle that torch.save did not write");
}
