"""Files in and out: images, DICOM, landmarks, transforms, lists of scans."""
